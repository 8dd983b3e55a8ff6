"""Faults in memory words: their laws, their injection, the statistics of effects."""

from jaxnas.faults.corruption import corrupt as corrupt
from jaxnas.faults.injection import Strike as Strike
from jaxnas.faults.injection import inject as inject
from jaxnas.faults.injection import sites as sites
from jaxnas.faults.injection import strikes as strikes
from jaxnas.faults.masks import Rate as Rate
from jaxnas.faults.masks import bernoulli_masks as bernoulli_masks
from jaxnas.faults.masks import bernoulli_positions as bernoulli_positions
from jaxnas.faults.masks import flips_to_masks as flips_to_masks
from jaxnas.faults.models import Fault as Fault
from jaxnas.faults.models import FaultModel as FaultModel
from jaxnas.faults.models import Flips as Flips
from jaxnas.faults.models import NetworkModel as NetworkModel
from jaxnas.faults.models import Site as Site
from jaxnas.faults.models import bit_flips as bit_flips
from jaxnas.faults.models import chain as chain
from jaxnas.faults.statistics import Interval as Interval
from jaxnas.faults.statistics import (
    clopper_pearson_interval as clopper_pearson_interval,
)
from jaxnas.faults.statistics import (
    clustered_wilson_interval as clustered_wilson_interval,
)
from jaxnas.faults.statistics import design_effect as design_effect
from jaxnas.faults.statistics import wilson_interval as wilson_interval
