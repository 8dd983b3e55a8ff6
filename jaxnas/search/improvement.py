"""Which children would enlarge the hypervolume of a population most.

After Emmerich, Beume and Naujoks, "An EMO algorithm using the hypervolume measure as
selection criterion" (2005), with guesses in place of what is not measured yet. Children
are chosen by Thompson sampling: each place is filled by the best child in the eyes of
one member of an ensemble, so that what is uncertain is tried too.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxnas.types import Key

from .hypervolume import reference_point

SAMPLES = 4096
"""Random points between the ideal and the reference on which volumes are compared."""


@functools.partial(jax.jit, static_argnames="places")
def most_promising(
    key: Key,
    guesses: Float[Array, "members children objectives"],
    new: Bool[Array, " children"],
    known: Float[Array, "rows objectives"],
    mask: Bool[Array, " rows"],
    places: int,
) -> Int[Array, " places"]:
    """Rows of the children that fill so many places, each by the next member's choice.

    A place goes to the child whose guess adds most to what the known rows in the mask,
    and in that member's eyes the children chosen before, dominate within
    `reference_point` of the known. Children that are not new come last.
    """
    reference = reference_point(known, mask)
    best = [
        jnp.min(known, axis=0, initial=jnp.inf, where=mask[:, None]),
        jnp.min(guesses, axis=(0, 1), initial=jnp.inf, where=new[None, :, None]),
    ]
    ideal = jnp.minimum(jnp.minimum(*best), reference)
    shares = jax.random.uniform(key, (SAMPLES, reference.size))
    points = ideal[None, :] + shares * (reference - ideal)[None, :]

    def reached(rows):
        return jnp.all(rows[:, None, :] <= points[None, :, :], axis=2)

    members = guesses.shape[0]
    dominated = jnp.any(reached(known) & mask[:, None], axis=0)
    gained = jax.vmap(reached)(guesses) & new[None, :, None]

    def fill(carry, place):
        dominated, taken = carry
        member = place % members
        gains = jnp.sum(gained[member] & ~dominated[member][None, :], axis=1)
        row = jnp.argmax(jnp.where(taken, -2, jnp.where(new, gains, -1)))
        return (dominated | gained[:, row], taken.at[row].set(True)), row

    start = jnp.tile(dominated[None, :], (members, 1)), jnp.zeros(new.size, bool)
    return jax.lax.scan(fill, start, jnp.arange(places))[1]
