"""Who mates with whom: rows that enter tournaments, and pairs of those that won."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxnas.types import Key

from .genomes import Real, Variable
from .ordering import ascending

GROUP = 8
"""Winners among whom parents that lie alike are sought. More of them lie closer, and
mix the genes of a population less: groups of 4, 8, 16 and all rows were tried."""


def entrants(
    key: Key, mask: Bool[Array, " rows"], count: int
) -> Int[Array, " entrants"]:
    """Rows in use, each as often as any other or once more, in random order.

    Shuffled rows one round after the other: everybody enters as many tournaments, and
    chance decides the opponents alone.
    """
    rows = mask.size
    rounds = -(-count // rows)
    noise = jax.random.bits(key, (rounds, rows), jnp.uint32) >> 1
    places = jnp.where(mask[None, :], noise, jnp.uint32(2**32 - 1))
    shuffled = jax.vmap(ascending)(places)
    used = jnp.maximum(jnp.sum(mask), 1)
    numbers = jnp.arange(count)
    return shuffled[(numbers // used) % rounds, numbers % used]


def paired(
    key: Key,
    winners: Int[Array, " proposals"],
    fitness: Float[Array, "rows objectives"],
    similar: bool,
) -> tuple[Int[Array, " proposals"], Int[Array, " proposals"]]:
    """Parents and mates, all of them winners: as they were drawn, or `alike`.

    The second half of the pairs is the first half with its parents exchanged.
    """
    if similar:
        winners = alike(key, winners, fitness)
    return winners, jnp.roll(winners, winners.size // 2)


def alike(
    key: Key,
    winners: Int[Array, " proposals"],
    fitness: Float[Array, "rows objectives"],
) -> Int[Array, " proposals"]:
    """The winners, the first half in the order of its mates in the second: neighbours
    by an objective drawn at random, among eight winners each.

    Parents from the far ends of a front share few of the genes that put them there,
    and children that mix these fall back to the middle. After Ishibuchi, Narukawa,
    Tsukamoto and Nojima, "An empirical study on similarity-based mating for
    evolutionary multiobjective combinatorial optimization" (2008), who choose the most
    similar of several candidates.
    """
    column = jax.random.randint(key, (), 0, fitness.shape[1])
    whole = winners.size // GROUP * GROUP
    groups = winners[:whole].reshape(-1, GROUP)
    value = fitness[groups, column]
    ones, others = value[:, :, None], value[:, None, :]
    earlier = jnp.tri(GROUP, k=-1, dtype=bool)[None]
    place = jnp.sum((others < ones) | ((others == ones) & earlier), axis=2)
    ordered = jax.vmap(lambda group, place: group.at[place].set(group))(groups, place)
    neighbours = jnp.append(ordered, winners[whole:]).reshape(-1, 2)
    return neighbours.T.reshape(-1)


def mixes_values(variables: tuple[Variable, ...]) -> bool:
    """Whether crossover only mixes the values of two parents, as no gene is real.

    Then `alike` is better; simulated binary crossover makes steps as long as parents
    are apart, and wants them as they are drawn.
    """
    return not any(isinstance(variable, Real) for variable in variables)
