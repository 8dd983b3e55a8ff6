"""A switch whose derivative keeps nothing but its operands.

`jax.lax.switch` under reverse mode saves the intermediate values of every branch, zeros
for those not taken, which for a supernet is most of the memory traffic. Here the
backward pass switches again and differentiates only the branch that was taken,
recomputing it from the operands.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int


def recomputed_switch(
    index: Int[Array, ""] | int, branches: Sequence[Callable], *operands
):
    """`lax.switch(index, branches, *operands)`; reverse mode recomputes the branch.

    Branches must take all they depend on from `operands`, return floating-point arrays
    of one structure, and are differentiated with respect to floating-point operands.
    A Python int as index picks its branch at once. Forward mode is not supported.
    """
    if isinstance(index, int):
        return branches[index](*operands)
    leaves, structure = jax.tree.flatten(operands)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    inexact = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

    def on_parts(branch):
        def run(floats, others):
            floats, others = iter(floats), iter(others)
            merged = [
                next(floats) if is_float else next(others) for is_float in inexact
            ]
            return branch(*jax.tree.unflatten(structure, merged))

        return run

    def pullback(branch):
        def pull(floats, others, cotangent):
            _, transpose = jax.vjp(lambda f: on_parts(branch)(f, others), floats)
            return transpose(cotangent)[0]

        return pull

    @jax.custom_vjp
    def switch(index, floats, others):
        return lax.switch(index, [on_parts(b) for b in branches], floats, others)

    def forward(index, floats, others):
        return switch(index, floats, others), (index, floats, others)

    def backward(saved, cotangent):
        index, floats, others = saved
        branch_pulls = [pullback(branch) for branch in branches]
        return None, lax.switch(index, branch_pulls, floats, others, cotangent), None

    switch.defvjp(forward, backward)
    floats = [leaf for leaf, is_float in zip(leaves, inexact, strict=True) if is_float]
    others = [
        leaf for leaf, is_float in zip(leaves, inexact, strict=True) if not is_float
    ]
    return switch(jnp.asarray(index), floats, others)
