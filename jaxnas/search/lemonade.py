"""LEMONADE: propose where the front is sparse in the objectives that cost nothing.

Elsken, Metzen and Hutter, "Efficient Multi-Objective Neural Architecture Search via
Lamarckian Evolution", ICLR 2019, Algorithm 1. Cheap objectives follow from a genotype
by arithmetic, expensive ones need training. Many children are therefore proposed and
few accepted for training, both with a probability inverse to the density of the
population in the space of the cheap objectives.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from evosax.types import Solution

from .algorithms import MultiObjectiveAlgorithm
from .density import kernel_log_density


class Lemonade(MultiObjectiveAlgorithm):
    """See `MultiObjectiveAlgorithm`; densities are taken over log cheap objectives.

    Each ask draws `proposals` parents with replacement, with weights `1 / density`,
    mutates each once, and accepts `accepted` of the genotypes never seen before without
    replacement, with weights `1 / density` under the same density: that of the
    population. Fewer are accepted where fewer are new, and none when the population is
    empty because all of it failed.

    Args:
      mutate: `mutate(key, genotype) -> genotype`, one genotype int32 `[genes]`.
      cheap: `cheap(genotype) -> float32[objectives]`, strictly positive. A genotype for
        which it is not, or not finite, is never accepted.
      proposals: children proposed per ask, at least `accepted`.
    """

    def __init__(
        self,
        population_size: int,
        solution: Solution,
        *,
        num_objectives: int,
        mutate: Callable,
        cheap: Callable,
        proposals: int = 2048,
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
        self.mutate = mutate
        self.cheap = cheap

    def _ask(self, key, state, params):
        key_noise, key_mutate = jax.random.split(key)
        # One block of noise for both draws: every separate draw is compiled anew.
        shape = (self.proposals, self.population_size + 1)
        noise = jax.random.gumbel(key_noise, shape)

        costs = self._log_costs(state.population)
        breeding = state.mask & jnp.all(jnp.isfinite(costs), axis=1)
        density = kernel_log_density(costs, costs, breeding)
        log_weights = jnp.where(breeding, -density, -jnp.inf)
        # The Gumbel-max trick: argmax(log w + Gumbel) is row i with probability w_i.
        parents = jnp.argmax(noise[:, :-1] + log_weights[None, :], axis=1)

        def child(number, parent):
            key = jax.random.fold_in(key_mutate, number)
            return self.mutate(key, state.population[parent])

        proposals = jax.vmap(child)(jnp.arange(self.proposals), parents)
        child_costs = self._log_costs(proposals)
        density = kernel_log_density(costs, child_costs, breeding)
        acceptable = self._unseen(state, proposals) & jnp.any(breeding)
        acceptable &= jnp.all(jnp.isfinite(child_costs), axis=1)
        # The k largest of log w + Gumbel are k rows drawn one by one without
        # replacement, each with probability proportional to w among those left.
        scores = jnp.where(acceptable, noise[:, -1] - density, -jnp.inf)
        scores, chosen = jax.lax.top_k(scores, self.accepted)
        state = state.replace(parents=parents[chosen], children_mask=scores > -jnp.inf)
        return proposals[chosen], state

    def _log_costs(self, population):
        costs = jax.vmap(self.cheap)(population)
        if costs.ndim != 2:
            raise ValueError(
                f"cheap returned shape {costs.shape[1:]}, expected one axis; stack the "
                "cheap objectives into a vector"
            )
        return jnp.log(costs)

    def _configuration(self):
        return *super()._configuration(), self.mutate, self.cheap
