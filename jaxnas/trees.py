"""Pytrees by name: a path and a key per leaf, selection by path, sizes in bits."""

from fnmatch import fnmatchcase

import jax
from jaxtyping import PyTree

from jaxnas.types import Key


def leaf_paths(tree: PyTree) -> list[str]:
    """The path of every leaf, in the order of the leaves: `"block/0/kernel"`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves]


def select(tree: PyTree, pattern: str = "*") -> list[bool]:
    """Whether each leaf's path matches a glob, in the order of the leaves.

    `*` matches any text, slashes included: `"*/kernel"` finds kernels at any depth.

    Raises:
      ValueError: no leaf matches; the message lists all paths.
    """
    paths = leaf_paths(tree)
    selected = [fnmatchcase(path, pattern) for path in paths]
    if not any(selected):
        raise ValueError(
            f"no leaf matches {pattern!r}; expected a glob for one of the paths: "
            f"{', '.join(paths) or '(the tree has no leaves)'}"
        )
    return selected


def leaf_keys(key: Key, tree: PyTree) -> PyTree:
    """A tree of the same structure with a key per leaf: `fold_in(key, n)` for leaf n.

    The key of a leaf depends on its number alone, not on what is done to others.
    """
    structure = jax.tree.structure(tree)
    keys = [jax.random.fold_in(key, n) for n in range(structure.num_leaves)]
    return structure.unflatten(keys)


def size_in_bits(tree: PyTree) -> int:
    """The bits that all array leaves occupy; arrays may be given by shape and dtype."""
    return sum(leaf.size * leaf.dtype.itemsize * 8 for leaf in jax.tree.leaves(tree))
