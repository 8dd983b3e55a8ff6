"""Closed-form hardware costs of a layer table."""

from jaxnas.hardware.latency import LatencyModel as LatencyModel
from jaxnas.hardware.latency import LayerLatencies as LayerLatencies
from jaxnas.hardware.latency import load_latencies as load_latencies
from jaxnas.hardware.latency import predicted_us as predicted_us
from jaxnas.hardware.memory import activation_traffic_bytes as activation_traffic_bytes
from jaxnas.hardware.memory import peak_activation_bytes as peak_activation_bytes
from jaxnas.hardware.memory import traffic_bytes as traffic_bytes
from jaxnas.hardware.memory import weight_bytes as weight_bytes
from jaxnas.hardware.systolic import SramWords as SramWords
from jaxnas.hardware.systolic import SystolicArray as SystolicArray
from jaxnas.hardware.systolic import compute_utilisation as compute_utilisation
from jaxnas.hardware.systolic import cycles as cycles
from jaxnas.hardware.systolic import latency_cycles as latency_cycles
from jaxnas.hardware.systolic import mapping_efficiency as mapping_efficiency
from jaxnas.hardware.systolic import sram_words as sram_words
from jaxnas.hardware.systolic import utilisation as utilisation
