"""Faults in memory words: their laws, their injection, the statistics of effects."""

from jaxnas.faults.bits import Flips as Flips
from jaxnas.faults.corruption import corrupt as corrupt
from jaxnas.faults.defects import Action as Action
from jaxnas.faults.defects import stuck_at as stuck_at
from jaxnas.faults.defects import word_faults as word_faults
from jaxnas.faults.flips import directed_flips as directed_flips
from jaxnas.faults.flips import fixed_flips as fixed_flips
from jaxnas.faults.flips import given_flips as given_flips
from jaxnas.faults.flips import network_flips as network_flips
from jaxnas.faults.flips import selective_flips as selective_flips
from jaxnas.faults.flips import single_flip as single_flip
from jaxnas.faults.ftt import biased_features as biased_features
from jaxnas.faults.ftt import mac_rate as mac_rate
from jaxnas.faults.ftt import stuck_weights as stuck_weights
from jaxnas.faults.gradients import faulty_state as faulty_state
from jaxnas.faults.gradients import faulty_updates as faulty_updates
from jaxnas.faults.injection import Strike as Strike
from jaxnas.faults.injection import inject as inject
from jaxnas.faults.injection import sites as sites
from jaxnas.faults.injection import strikes as strikes
from jaxnas.faults.masks import bernoulli_masks as bernoulli_masks
from jaxnas.faults.masks import bernoulli_positions as bernoulli_positions
from jaxnas.faults.masks import flips_to_masks as flips_to_masks
from jaxnas.faults.masks import uniform_positions as uniform_positions
from jaxnas.faults.memory import AddressMap as AddressMap
from jaxnas.faults.memory import Place as Place
from jaxnas.faults.memory import unit_faults as unit_faults
from jaxnas.faults.models import Fault as Fault
from jaxnas.faults.models import FaultModel as FaultModel
from jaxnas.faults.models import NetworkModel as NetworkModel
from jaxnas.faults.models import Site as Site
from jaxnas.faults.models import bit_flips as bit_flips
from jaxnas.faults.models import chain as chain
from jaxnas.faults.noise import additive_noise as additive_noise
from jaxnas.faults.noise import dead_channels as dead_channels
from jaxnas.faults.noise import dead_elements as dead_elements
from jaxnas.faults.noise import multiplicative_noise as multiplicative_noise
from jaxnas.faults.rates import Rate as Rate
from jaxnas.faults.rates import Rates as Rates
from jaxnas.faults.statistics import Interval as Interval
from jaxnas.faults.statistics import (
    clopper_pearson_interval as clopper_pearson_interval,
)
from jaxnas.faults.statistics import (
    clustered_wilson_interval as clustered_wilson_interval,
)
from jaxnas.faults.statistics import design_effect as design_effect
from jaxnas.faults.statistics import wilson_interval as wilson_interval
from jaxnas.faults.upsets import bursts as bursts
from jaxnas.faults.upsets import upsets as upsets
