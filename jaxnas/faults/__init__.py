"""Faults in memory words: their laws, their injection, the statistics of effects."""

from jaxnas.faults.bits import Flips as Flips
from jaxnas.faults.campaigns import campaign as campaign
from jaxnas.faults.campaigns import exhaustive as exhaustive
from jaxnas.faults.campaigns import fastest_batch as fastest_batch
from jaxnas.faults.corruption import corrupt as corrupt
from jaxnas.faults.defects import Action as Action
from jaxnas.faults.defects import stuck_at as stuck_at
from jaxnas.faults.defects import word_faults as word_faults
from jaxnas.faults.exhaustion import Located as Located
from jaxnas.faults.exhaustion import SelectedBits as SelectedBits
from jaxnas.faults.exhaustion import flip_each as flip_each
from jaxnas.faults.findings import Campaign as Campaign
from jaxnas.faults.findings import stop_at as stop_at
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
from jaxnas.faults.means import Moments as Moments
from jaxnas.faults.means import mean_interval as mean_interval
from jaxnas.faults.means import merge as merge
from jaxnas.faults.means import moments_by as moments_by
from jaxnas.faults.means import moments_of as moments_of
from jaxnas.faults.means import share_interval as share_interval
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
from jaxnas.faults.outcomes import accuracy as accuracy
from jaxnas.faults.outcomes import accuracy_drop as accuracy_drop
from jaxnas.faults.outcomes import critical_sdc as critical_sdc
from jaxnas.faults.outcomes import due as due
from jaxnas.faults.outcomes import loss_difference as loss_difference
from jaxnas.faults.outcomes import masked as masked
from jaxnas.faults.outcomes import output_distance as output_distance
from jaxnas.faults.outcomes import sdc1 as sdc1
from jaxnas.faults.outcomes import sdc5 as sdc5
from jaxnas.faults.paired import clustered_paired_interval as clustered_paired_interval
from jaxnas.faults.paired import mcnemar_test as mcnemar_test
from jaxnas.faults.paired import mean_difference_interval as mean_difference_interval
from jaxnas.faults.paired import paired_interval as paired_interval
from jaxnas.faults.rates import Rate as Rate
from jaxnas.faults.rates import Rates as Rates
from jaxnas.faults.records import TrialRecords as TrialRecords
from jaxnas.faults.records import read_records as read_records
from jaxnas.faults.sampling_plans import margin_of_error as margin_of_error
from jaxnas.faults.sampling_plans import neyman_allocation as neyman_allocation
from jaxnas.faults.sampling_plans import (
    proportional_allocation as proportional_allocation,
)
from jaxnas.faults.sampling_plans import sample_size as sample_size
from jaxnas.faults.sampling_plans import second_phase as second_phase
from jaxnas.faults.sequential import StoppingRule as StoppingRule
from jaxnas.faults.sequential import anytime_rule as anytime_rule
from jaxnas.faults.sequential import confidence_sequence as confidence_sequence
from jaxnas.faults.sequential import mean_rule as mean_rule
from jaxnas.faults.sequential import share_rule as share_rule
from jaxnas.faults.statistics import Interval as Interval
from jaxnas.faults.statistics import (
    clopper_pearson_interval as clopper_pearson_interval,
)
from jaxnas.faults.statistics import (
    clustered_wilson_interval as clustered_wilson_interval,
)
from jaxnas.faults.statistics import design_effect as design_effect
from jaxnas.faults.statistics import score_interval as score_interval
from jaxnas.faults.statistics import wilson_interval as wilson_interval
from jaxnas.faults.strata import BitStrata as BitStrata
from jaxnas.faults.strata import StratifiedCampaign as StratifiedCampaign
from jaxnas.faults.strata import bit_strata as bit_strata
from jaxnas.faults.strata import draw_strata as draw_strata
from jaxnas.faults.strata import stratified_campaign as stratified_campaign
from jaxnas.faults.stratified import Estimate as Estimate
from jaxnas.faults.stratified import stratified_mean as stratified_mean
from jaxnas.faults.stratified import stratified_share as stratified_share
from jaxnas.faults.trials import trial_key as trial_key
from jaxnas.faults.upsets import bursts as bursts
from jaxnas.faults.upsets import upsets as upsets
from jaxnas.faults.vulnerability import Vulnerability as Vulnerability
from jaxnas.faults.vulnerability import vulnerability_by as vulnerability_by
