"""Random search with the interface, memory and selection of the other algorithms."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from evosax.types import Solution

from .algorithms import MultiObjectiveAlgorithm


class RandomSearch(MultiObjectiveAlgorithm):
    """See `MultiObjectiveAlgorithm`; children are drawn from one distribution, always.

    Children have no parents (-1). What a comparison with it measures is the proposal
    alone: repetitions and failures are treated, and fronts are kept, as everywhere.

    Args:
      sample: `sample(key) -> genotype`, one genotype int32 `[genes]`.
      proposals: genotypes drawn per ask; the first `accepted` new ones are kept.
    """

    def __init__(
        self,
        population_size: int,
        solution: Solution,
        *,
        num_objectives: int,
        sample: Callable,
        proposals: int = 64,
        accepted: int = 16,
        memory: int = 1024,
    ):
        super().__init__(
            population_size,
            solution,
            num_objectives=num_objectives,
            proposals=proposals,
            accepted=accepted,
            memory=memory,
        )
        self.sample = sample

    def _ask(self, key, state, params):
        numbers = jnp.arange(self.proposals)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)
        proposals = jax.vmap(self.sample)(keys)
        unseen = self._unseen(state, proposals)
        chosen = jnp.argsort(~unseen, stable=True)[: self.accepted]
        parents = jnp.full(self.accepted, -1, jnp.int32)
        state = state.replace(parents=parents, children_mask=unseen[chosen])
        return proposals[chosen], state

    def _configuration(self):
        return *super()._configuration(), self.sample
