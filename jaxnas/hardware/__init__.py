"""Closed-form hardware costs of a layer table."""

from jaxnas.hardware.accelerators import PRESETS as PRESETS
from jaxnas.hardware.accelerators import Accelerator as Accelerator
from jaxnas.hardware.accelerators import load as load
from jaxnas.hardware.accelerators import preset as preset
from jaxnas.hardware.accelerators import save as save
from jaxnas.hardware.area import area_mm2 as area_mm2
from jaxnas.hardware.arrays import CONVENTIONS as CONVENTIONS
from jaxnas.hardware.arrays import DATAFLOWS as DATAFLOWS
from jaxnas.hardware.arrays import SystolicArray as SystolicArray
from jaxnas.hardware.bandwidth import after_first_fill as after_first_fill
from jaxnas.hardware.bandwidth import (
    bandwidth_limited_cycles as bandwidth_limited_cycles,
)
from jaxnas.hardware.bandwidth import latency_us as latency_us
from jaxnas.hardware.bandwidth import roofline_cycles as roofline_cycles
from jaxnas.hardware.counts import exact_cycles as exact_cycles
from jaxnas.hardware.counts import exact_sram_words as exact_sram_words
from jaxnas.hardware.dram import DramBytes as DramBytes
from jaxnas.hardware.dram import DramWords as DramWords
from jaxnas.hardware.dram import dram_bytes as dram_bytes
from jaxnas.hardware.dram import dram_words as dram_words
from jaxnas.hardware.energy import EnergyParts as EnergyParts
from jaxnas.hardware.energy import energy_parts as energy_parts
from jaxnas.hardware.energy import energy_pj as energy_pj
from jaxnas.hardware.exposure import Exposure as Exposure
from jaxnas.hardware.exposure import expected_upsets as expected_upsets
from jaxnas.hardware.exposure import exposure as exposure
from jaxnas.hardware.exposure import upsets as upsets
from jaxnas.hardware.latency import LatencyModel as LatencyModel
from jaxnas.hardware.latency import LayerLatencies as LayerLatencies
from jaxnas.hardware.latency import load_latencies as load_latencies
from jaxnas.hardware.latency import predicted_us as predicted_us
from jaxnas.hardware.memory import activation_traffic_bytes as activation_traffic_bytes
from jaxnas.hardware.memory import peak_activation_bytes as peak_activation_bytes
from jaxnas.hardware.memory import traffic_bytes as traffic_bytes
from jaxnas.hardware.memory import weight_bytes as weight_bytes
from jaxnas.hardware.relaxation import expected_cost as expected_cost
from jaxnas.hardware.relaxation import smooth as smooth
from jaxnas.hardware.relaxation import smooth_ceil as smooth_ceil
from jaxnas.hardware.relaxation import smooth_maximum as smooth_maximum
from jaxnas.hardware.relaxation import straight_through as straight_through
from jaxnas.hardware.systolic import SramWords as SramWords
from jaxnas.hardware.systolic import compute_utilisation as compute_utilisation
from jaxnas.hardware.systolic import cycles as cycles
from jaxnas.hardware.systolic import latency_cycles as latency_cycles
from jaxnas.hardware.systolic import mapping_efficiency as mapping_efficiency
from jaxnas.hardware.systolic import sram_words as sram_words
from jaxnas.hardware.systolic import utilisation as utilisation
from jaxnas.hardware.technologies import ENERGY_TABLES as ENERGY_TABLES
from jaxnas.hardware.technologies import HOROWITZ_45NM as HOROWITZ_45NM
from jaxnas.hardware.technologies import EnergyTable as EnergyTable
from jaxnas.hardware.technologies import eyeriss as eyeriss
