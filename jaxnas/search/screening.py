"""Of many children a surrogate picks those worth training.

It learns the expensive objectives from all networks that the search has measured, of
which the latest are remembered; genes are given one by one, cheap objectives as
logarithms.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnas.networks import space as spaces
from jaxnas.search.evaluation import Problem, Trained, columns
from jaxnas.search.improvement import most_promising
from jaxnas.search.objectives import CHEAP, of_each
from jaxnas.search.states import PopulationInState
from jaxnas.search.surrogates import fit_ensemble, predict
from jaxnas.types import Key

REMEMBERED = 1024
"""Networks that the surrogate learns from."""


class History(NamedTuple):
    """Networks measured so far, in a ring."""

    genotypes: Int[Array, "networks genes"]
    expensive: Float[Array, "networks expensive"]
    count: Int[Array, ""]


def screens(problem: Problem) -> bool:
    """Whether the algorithm returns more children than are trained."""
    return problem.algorithm.accepted > problem.group


def no_history(problem: Problem) -> History:
    """Room for what a surrogate learns from; none where there is no surrogate."""
    rows = REMEMBERED if screens(problem) else 0
    return History(
        jnp.zeros((rows, problem.space.genes), jnp.int32),
        jnp.zeros((rows, len(_expensive(problem))), jnp.float32),
        jnp.int32(0),
    )


def remembered(
    problem: Problem, history: History, trained: Trained, new: np.ndarray
) -> History:
    """The history with those of the networks just measured that are new."""
    rows = history.genotypes.shape[0]
    if not rows:
        return history
    found = columns(trained.objectives, _expensive(problem))
    chosen = np.flatnonzero(new)
    places = (int(history.count) + np.arange(len(chosen))) % rows
    return History(
        history.genotypes.at[places].set(trained.genotypes[chosen]),
        history.expensive.at[places].set(found[chosen]),
        history.count + jnp.int32(len(chosen)),
    )


def screened(
    key: Key,
    problem: Problem,
    history: History,
    children: Int[Array, "accepted genes"],
    state: PopulationInState,
) -> tuple[Int[Array, "accepted genes"], PopulationInState]:
    """The children and the state that tells their origin, those to be trained first.

    The rest no longer count as children: they may be proposed again.
    """
    known = jnp.arange(history.genotypes.shape[0]) < history.count
    seen, asked = (_features(problem, g) for g in (history.genotypes, children))
    fitting, choosing = jax.random.split(key)
    ensemble = fit_ensemble(fitting, seen, history.expensive, known)
    guesses = _completed(problem, children, predict(ensemble, asked))
    guesses, measured = (_on_scales(problem, v) for v in (guesses, state.fitness))
    new = state.children_mask
    rows = most_promising(choosing, guesses, new, measured, state.mask, problem.group)
    rest = np.setdiff1d(np.arange(children.shape[0]), rows)
    order = jnp.asarray(np.append(rows, rest))
    first = jnp.arange(order.size) < problem.group
    state = state.replace(
        parents=state.parents[order],
        mates=state.mates[order],
        children_mask=state.children_mask[order] & first,
    )
    return children[order], state


def _expensive(problem) -> tuple[str, ...]:
    return tuple(name for name in problem.objectives if name not in CHEAP)


def _completed(problem, children, predicted):
    """All objectives of the children as each member of the ensemble expects them."""
    names, cheap = _expensive(problem), of_each(problem.cheap, children)
    parts = []
    for name in problem.objectives:
        if name in names:
            parts.append(predicted[:, :, names.index(name)])
        else:
            column = cheap[None, :, CHEAP.index(name)]
            parts.append(jnp.broadcast_to(column, predicted.shape[:2]))
    return jnp.stack(parts, axis=2)


def _on_scales(problem, values):
    """Logarithms of the cheap objectives: shares of them matter, not differences."""
    cheap = np.broadcast_to(np.isin(problem.objectives, CHEAP), values.shape)
    return jnp.where(cheap, jnp.log(jnp.where(cheap, values, 1.0)), values)


def _features(problem, genotypes):
    cheap = [CHEAP.index(n) for n in problem.objectives if n in CHEAP]
    costs = of_each(problem.cheap, genotypes)[:, np.array(cheap, int)]
    return _described(problem.space, genotypes, costs)


@functools.partial(jax.jit, static_argnames="space")
def _described(space, genotypes, costs):
    """Every value of every gene as a column of zeros and ones, then log costs."""
    counts = spaces.cardinalities(space)
    gene = np.repeat(np.arange(len(counts)), counts)
    value = np.concatenate([np.arange(count) for count in counts])
    shown = (genotypes[:, gene] == value[None]).astype(jnp.float32)
    return jnp.concatenate([shown, jnp.log(jnp.maximum(costs, 1e-9))], axis=1)
