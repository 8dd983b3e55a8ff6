"""Multi-objective evolution: Pareto geometry and the algorithms that use it."""

from .algorithms import MultiObjectiveAlgorithm as MultiObjectiveAlgorithm
from .algorithms import State as State
from .lemonade import Lemonade as Lemonade
from .pareto import crowding_distance as crowding_distance
from .pareto import dominates as dominates
from .pareto import front_ranks as front_ranks
from .pareto import hypervolume as hypervolume
from .pareto import kernel_log_density as kernel_log_density
from .pareto import nondominated as nondominated
from .pareto import thin as thin
from .random import RandomSearch as RandomSearch
