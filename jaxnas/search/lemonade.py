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

from .crowding import crowding_distance, thin
from .density import kernel_log_density
from .generations import GenerationalAlgorithm
from .genomes import mutants
from .pareto import front_ranks


class Lemonade(GenerationalAlgorithm):
    """See `GenerationalAlgorithm`; the population is the front of all it was told.

    Each ask draws `proposals` parents with replacement, with weights `1 / density`,
    mutates each once, and accepts `accepted` of the new genomes without replacement,
    with weights `1 / density` under the same density: that of the population, over log
    cheap objectives. Fewer are accepted where fewer are new, and none when the
    population is empty because all of it failed. Of many proposals density accepts the
    outliers: accept all, and let a surrogate choose (see `screening`).

    A front beyond `population_size` is thinned by crowding; the best of every objective
    survive that if it is at least twice `num_objectives`. Survivors keep their order,
    old rows before new ones. While nothing is feasible, what breaks the constraints
    least survives.

    Args:
      cheap: `cheap(genome) -> float32[objectives]`, strictly positive. A genome for
        which it is not, or not finite, is never accepted.
      proposals: an even number, much larger than `accepted`.
    """

    def __init__(
        self,
        *arguments,
        cheap: Callable,
        proposals: int = 2048,
        accepted: int = 16,
        memory: int = 1024,
        **options,
    ):
        counts = dict(proposals=proposals, accepted=accepted, memory=memory)
        super().__init__(*arguments, **counts, **options)
        self.cheap = cheap

    def _matings(self, key, state):
        costs, breeding = self._breeding(state)
        density = kernel_log_density(costs, costs, breeding)
        log_weights = jnp.where(breeding, -density, -jnp.inf)
        # The Gumbel-max trick: argmax(log w + Gumbel) is row i with probability w_i.
        noise = jax.random.gumbel(key, (self.proposals, self.population_size))
        parents = jnp.argmax(noise + log_weights[None, :], axis=1).astype(jnp.int32)
        return parents, jnp.full(self.proposals, -1, jnp.int32)

    def _children(self, key, first, second, params):
        if self.variation is not None:
            return self.variation(key, first, first, params)
        return mutants(key, first, params.variables, params.rates)

    def _chosen(self, key, state, children, new):
        costs, breeding = self._breeding(state)
        child_costs = self._log_costs(children)
        density = kernel_log_density(costs, child_costs, breeding)
        new &= jnp.any(breeding) & jnp.all(jnp.isfinite(child_costs), axis=1)
        # The k largest of log w + Gumbel are k rows drawn one by one without
        # replacement, each with probability proportional to w among those left.
        noise = jax.random.gumbel(key, (self.proposals,))
        scores = jnp.where(new, noise - density, -jnp.inf)
        scores, chosen = jax.lax.top_k(scores, self.accepted)
        return chosen, scores > -jnp.inf

    def _survivors(self, key, state, fitness, violation, mask, params):
        limits = violation if self.num_constraints else None
        rank = front_ranks(fitness, mask, limits, enough=1)
        front = mask & (rank == 0)
        kept = thin(fitness, self.population_size, front)
        rows = jnp.argsort(~kept, stable=True)[: self.population_size]
        rows = jnp.where(kept[rows], rows, -1).astype(jnp.int32)
        return rows, rank, crowding_distance(fitness, kept), state.extra

    def _breeding(self, state):
        """Log costs of the population, and the rows that have them all."""
        costs = self._log_costs(state.population)
        return costs, state.mask & jnp.all(jnp.isfinite(costs), axis=1)

    def _log_costs(self, population):
        costs = jax.vmap(self.cheap)(population)
        if costs.ndim != 2:
            raise ValueError(
                f"cheap returned shape {costs.shape[1:]}, expected one axis; stack the "
                "cheap objectives into a vector"
            )
        return jnp.log(costs)

    def _configuration(self):
        return *super()._configuration(), self.cheap
