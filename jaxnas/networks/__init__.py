"""Quantised networks: the search space, the supernet and what is cut from it."""

from jaxnas.networks.compact import BlockSpec as BlockSpec
from jaxnas.networks.compact import CompactNetwork as CompactNetwork
from jaxnas.networks.compact import NetworkSpec as NetworkSpec
from jaxnas.networks.compact import WordSpec as WordSpec
from jaxnas.networks.materialize import materialize as materialize
from jaxnas.networks.materialize import network_spec as network_spec
from jaxnas.networks.space import SearchSpace as SearchSpace
from jaxnas.networks.space import Stage as Stage
from jaxnas.networks.space import canonical as canonical
from jaxnas.networks.space import describe as describe
from jaxnas.networks.space import sample as sample
from jaxnas.networks.tables import layer_table as layer_table
