"""What can be said of a network without running it, and how well that agrees."""

from jaxnas.analysis.resilience import Agreement as Agreement
from jaxnas.analysis.resilience import activation_fragility as activation_fragility
from jaxnas.analysis.resilience import (
    few_weight_flips_fragility as few_weight_flips_fragility,
)
from jaxnas.analysis.resilience import rank_agreement as rank_agreement
from jaxnas.analysis.resilience import (
    single_activation_fragility as single_activation_fragility,
)
from jaxnas.analysis.resilience import weight_fragility as weight_fragility
