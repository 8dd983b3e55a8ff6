"""Faults in memory words: their laws, their injection, the statistics of effects."""

from jaxnas.faults.campaigns import Campaign as Campaign
from jaxnas.faults.campaigns import campaign as campaign
from jaxnas.faults.campaigns import exhaustive as exhaustive
from jaxnas.faults.campaigns import fastest_batch as fastest_batch
from jaxnas.faults.injection import Site as Site
from jaxnas.faults.injection import corrupt as corrupt
from jaxnas.faults.injection import inject as inject
from jaxnas.faults.injection import sites as sites
from jaxnas.faults.masks import Rate as Rate
from jaxnas.faults.masks import bernoulli_masks as bernoulli_masks
from jaxnas.faults.masks import bernoulli_positions as bernoulli_positions
from jaxnas.faults.masks import flips_to_masks as flips_to_masks
from jaxnas.faults.models import Fault as Fault
from jaxnas.faults.models import FaultModel as FaultModel
from jaxnas.faults.models import Flips as Flips
from jaxnas.faults.models import bit_flips as bit_flips
from jaxnas.faults.models import chain as chain
from jaxnas.faults.outcomes import accuracy as accuracy
from jaxnas.faults.outcomes import accuracy_drop as accuracy_drop
from jaxnas.faults.outcomes import critical_sdc as critical_sdc
from jaxnas.faults.outcomes import due as due
from jaxnas.faults.outcomes import loss_difference as loss_difference
from jaxnas.faults.outcomes import masked as masked
from jaxnas.faults.outcomes import output_distance as output_distance
from jaxnas.faults.outcomes import sdc1 as sdc1
from jaxnas.faults.outcomes import sdc5 as sdc5
from jaxnas.faults.records import TrialRecords as TrialRecords
from jaxnas.faults.records import read_records as read_records
from jaxnas.faults.statistics import Interval as Interval
from jaxnas.faults.statistics import (
    clopper_pearson_interval as clopper_pearson_interval,
)
from jaxnas.faults.statistics import (
    clustered_wilson_interval as clustered_wilson_interval,
)
from jaxnas.faults.statistics import design_effect as design_effect
from jaxnas.faults.statistics import wilson_interval as wilson_interval
from jaxnas.faults.trials import trial_key as trial_key
