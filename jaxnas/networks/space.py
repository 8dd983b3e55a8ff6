"""The search space: integer genotypes and the architectures they stand for.

A network is a stem convolution, stages of blocks with 2x2 max-pooling between the
stages, a global sum, and a dense layer. A genotype is one int32 vector: three genes
for the stem, eight for every block slot, one for the head. Genes index the choices of
the space, so every vector below `cardinalities` is a network; `canonical` maps the
vectors that differ in genes without effect to one of them.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jaxnas.types import Genotype, Key

OPERATIONS = ("convolution", "separable", "inverted")
CONVOLUTION, SEPARABLE, INVERTED = range(3)
STEM_GENES = ("width", "weight_bits", "activation_bits")
BLOCK_GENES = (
    "present",
    "operation",
    "kernel",
    "width",
    "expansion",
    "residual",
    "weight_bits",
    "activation_bits",
)
HEAD_GENES = ("weight_bits",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Blocks that share one map size; the map is halved before every later stage."""

    widths: tuple[int, ...]
    """Channel counts that a block of this stage may have, in rising order."""
    blocks: int
    """Number of block slots; each may be absent."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Everything that a genotype may choose from, and the image it is applied to."""

    image: tuple[int, int, int]
    """Height, width and channels of the input image, in pixels."""
    classes: int
    """Number of classes."""
    stages: tuple[Stage, ...]
    """Stages from the input to the output."""
    kernels: tuple[int, ...] = (3, 5)
    """Odd side lengths of the spatial kernels, in rising order."""
    expansions: tuple[int, ...] = (2, 3)
    """Expansion factors of the inverted residual, in rising order."""
    word_bits: tuple[int, ...] = (4, 8)
    """Word widths of weights and activations, in bits, in rising order."""

    def __post_init__(self):
        _validate(self)

    @property
    def slots(self) -> int:
        """Number of block slots in all stages."""
        return sum(stage.blocks for stage in self.stages)

    @property
    def genes(self) -> int:
        """Length of a genotype."""
        return len(STEM_GENES) + self.slots * len(BLOCK_GENES) + len(HEAD_GENES)

    @property
    def stage_of_slot(self) -> tuple[int, ...]:
        """The stage index of every block slot."""
        return tuple(
            index
            for index, stage in enumerate(self.stages)
            for _ in range(stage.blocks)
        )

    def map_size(self, stage: int) -> tuple[int, int]:
        """Height and width of the maps of a stage."""
        return self.image[0] >> stage, self.image[1] >> stage

    def padded_width(self, stage: int) -> int:
        """Channels that hold any map met in this stage."""
        return max(max(one.widths) for one in self.stages[: stage + 1])


class Architecture(NamedTuple):
    """A decoded genotype: int32 arrays, `[slots]` for the blocks; widths in channels.

    `*_bits` fields are indices into `SearchSpace.word_bits`. `source` is the producer
    of the map that reaches a slot, and the head in its last entry: 0 is the stem, i + 1
    is slot i. An absent block has the width of the map which passes by it.
    """

    stem_width: Int[Array, ""]
    stem_weight_bits: Int[Array, ""]
    stem_activation_bits: Int[Array, ""]
    present: Bool[Array, " slots"]
    operation: Int[Array, " slots"]
    kernel: Int[Array, " slots"]
    in_width: Int[Array, " slots"]
    expanded_width: Int[Array, " slots"]
    out_width: Int[Array, " slots"]
    residual: Bool[Array, " slots"]
    weight_bits: Int[Array, " slots"]
    activation_bits: Int[Array, " slots"]
    source: Int[Array, " slots+1"]
    head_width: Int[Array, ""]
    head_weight_bits: Int[Array, ""]


@functools.cache
def cardinalities(space: SearchSpace) -> np.ndarray:
    """Number of values of every gene, int32 `[genes]`."""
    bits = len(space.word_bits)
    counts = [len(space.stages[0].widths), bits, bits]
    for stage in space.stages:
        block = {
            "present": 2,
            "operation": len(OPERATIONS),
            "kernel": len(space.kernels),
            "width": len(stage.widths),
            "expansion": len(space.expansions),
            "residual": 2,
            "weight_bits": bits,
            "activation_bits": bits,
        }
        counts += [block[gene] for gene in BLOCK_GENES] * stage.blocks
    return np.array([*counts, bits], np.int32)


def block_genes(space: SearchSpace, genotype: Genotype) -> Int[Array, "slots 8"]:
    """The genes of the block slots, one row a slot in the order of `BLOCK_GENES`."""
    first = len(STEM_GENES)
    last = first + space.slots * len(BLOCK_GENES)
    rows = jnp.asarray(genotype)[first:last]
    return rows.reshape(space.slots, len(BLOCK_GENES))


def join(
    stem: Int[Array, " stem"], blocks: Int[Array, "slots 8"], head: Int[Array, " head"]
) -> Genotype:
    """The genotype with these genes; the inverse of taking them apart."""
    return jnp.concatenate([stem, blocks.reshape(-1), head]).astype(jnp.int32)


def decode(space: SearchSpace, genotype: Genotype) -> Architecture:
    """The architecture of one genotype; pure arithmetic, to be vmapped."""
    genotype = jnp.asarray(genotype)
    stem, head = genotype[: len(STEM_GENES)], genotype[-len(HEAD_GENES) :]
    gene = dict(zip(BLOCK_GENES, block_genes(space, genotype).T, strict=True))
    present = gene["present"] == 1
    stem_width = jnp.array(space.stages[0].widths)[stem[0]]
    chosen_width = width_table(space)[jnp.arange(space.slots), gene["width"]]
    source = _sources(present)
    reached = jnp.concatenate([stem_width[None], chosen_width])[source]
    in_width, head_width = reached[:-1], reached[-1]
    expansion = jnp.array(space.expansions)[gene["expansion"]]
    inverted = gene["operation"] == INVERTED
    return Architecture(
        stem_width=stem_width,
        stem_weight_bits=stem[1],
        stem_activation_bits=stem[2],
        present=present,
        operation=gene["operation"],
        kernel=gene["kernel"],
        in_width=in_width,
        expanded_width=in_width * jnp.where(inverted, expansion, 1),
        out_width=jnp.where(present, chosen_width, in_width),
        # The shortcut is the identity, padded with zero channels where the block widens
        # (option A of He et al. 2016); a block that narrows has none.
        residual=present & (gene["residual"] == 1) & (chosen_width >= in_width),
        weight_bits=gene["weight_bits"],
        activation_bits=gene["activation_bits"],
        source=source,
        head_width=head_width,
        head_weight_bits=head[0],
    )


def width_table(space: SearchSpace) -> Int[Array, "slots choices"]:
    """Widths among which every slot may choose, in channels; 0 is none."""
    longest = max(len(stage.widths) for stage in space.stages)
    rows = [
        stage.widths + (0,) * (longest - len(stage.widths))
        for stage in space.stages
        for _ in range(stage.blocks)
    ]
    return jnp.array(rows, jnp.int32)


def _sources(present: Bool[Array, " slots"]) -> Int[Array, " slots+1"]:
    """The latest present block before every slot and before the head."""
    numbers = jnp.arange(1, present.shape[0] + 1, dtype=jnp.int32)
    latest = jax.lax.cummax(jnp.where(present, numbers, 0))
    return jnp.concatenate([jnp.zeros(1, jnp.int32), latest])


def canonical(space: SearchSpace, genotype: Genotype) -> Genotype:
    """The same network with all genes that have no effect set to zero.

    Blocks stay in their slots, absent ones between them too: weights belong to slots.
    """
    genotype = jnp.asarray(genotype)
    architecture = decode(space, genotype)
    gene = dict(zip(BLOCK_GENES, block_genes(space, genotype).T, strict=True))
    inverted = architecture.operation == INVERTED
    gene["expansion"] = jnp.where(inverted, gene["expansion"], 0)
    gene["residual"] = architecture.residual.astype(jnp.int32)
    rows = jnp.stack([gene[name] for name in BLOCK_GENES], axis=1)
    rows = jnp.where(architecture.present[:, None], rows, 0)
    return join(genotype[: len(STEM_GENES)], rows, genotype[-len(HEAD_GENES) :])


def sample(key: Key, space: SearchSpace) -> Genotype:
    """A random network: every gene uniform over its values, then `canonical`."""
    bits = jax.random.bits(key, (space.genes,), jnp.uint32)
    return canonical(space, _uniform_values(bits, cardinalities(space)))


def smallest(space: SearchSpace) -> Genotype:
    """The trivial network: narrowest stem in the widest words, every block absent."""
    genotype = jnp.zeros(space.genes, jnp.int32)
    return genotype.at[jnp.array([1, 2, -1])].set(len(space.word_bits) - 1)


def _uniform_values(bits, counts):
    # The high word of bits * n maps 32 random bits onto {0..n-1}, exact for n < 2**16.
    high, low = bits >> 16, bits & 0xFFFF
    counts = counts.astype(jnp.uint32)
    return ((high * counts + ((low * counts) >> 16)) >> 16).astype(jnp.int32)


def widest_words(space: SearchSpace, genotype: Genotype) -> Genotype:
    """The same network with every word of the greatest width that the space has."""
    names = [
        *STEM_GENES,
        *BLOCK_GENES * space.slots,
        *HEAD_GENES,
    ]
    chooses_bits = jnp.array([name.endswith("_bits") for name in names])
    widest = jnp.where(chooses_bits, len(space.word_bits) - 1, genotype)
    return canonical(space, widest)


def describe(space: SearchSpace, genotype: Genotype) -> str:
    """One readable line: `stem 3x3 16 w8a8 | inv 5x5 24 e2 +skip w4a8 | pool | ...`."""
    one = jax.tree.map(np.asarray, decode(space, genotype))
    bits = space.word_bits
    words = f"w{bits[one.stem_weight_bits]}a{bits[one.stem_activation_bits]}"
    parts = [f"stem 3x3 {one.stem_width} {words}"]
    prefix = {CONVOLUTION: "conv", SEPARABLE: "sep", INVERTED: "inv"}
    previous = 0
    for slot, stage in enumerate(space.stage_of_slot):
        parts += ["pool"] * (stage - previous)
        previous = stage
        if not one.present[slot]:
            continue
        side = space.kernels[one.kernel[slot]]
        text = f"{prefix[int(one.operation[slot])]} {side}x{side} {one.out_width[slot]}"
        if one.operation[slot] == INVERTED:
            text += f" e{one.expanded_width[slot] // one.in_width[slot]}"
        text += " +skip" if one.residual[slot] else ""
        words = f"w{bits[one.weight_bits[slot]]}a{bits[one.activation_bits[slot]]}"
        parts.append(f"{text} {words}")
    parts += ["pool"] * (len(space.stages) - 1 - previous)
    return " | ".join([*parts, f"dense w{bits[one.head_weight_bits]}"])


def _validate(space: SearchSpace) -> None:
    """Raise ValueError for a space that has no network or an impossible one."""
    if not space.stages:
        raise ValueError("a search space needs at least one stage, found none")
    height, width, channels = space.image
    if min(height, width) >> (len(space.stages) - 1) < 1 or channels < 1:
        raise ValueError(
            f"image {space.image} is too small for {len(space.stages)} stages, each of "
            "which halves the map: use fewer stages or larger images"
        )
    if space.classes < 2:
        raise ValueError(f"classes must be at least 2, found {space.classes}")
    for index, stage in enumerate(space.stages):
        if stage.blocks < 1:
            raise ValueError(
                f"stage {index} has {stage.blocks} blocks, expected at least 1"
            )
        _validate_choices(f"stage {index} widths", stage.widths, 1, 4096)
    _validate_choices("kernels", space.kernels, 1, 15)
    _validate_choices("expansions", space.expansions, 1, 16)
    _validate_choices("word_bits", space.word_bits, 2, 16)
    if any(side % 2 == 0 for side in space.kernels):
        raise ValueError(
            f"kernels must be odd so that maps keep their size, found {space.kernels}"
        )


def _validate_choices(name, values, low, high):
    bad = [value for value in values if not low <= value <= high]
    if not values or bad or list(values) != sorted(set(values)):
        raise ValueError(
            f"{name} must be a rising, non-empty list of values from {low} to {high}, "
            f"found {tuple(values)}"
        )
