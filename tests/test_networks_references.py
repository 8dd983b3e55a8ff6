"""Published networks have their published costs."""

import json

import jax
import jax.numpy as jnp

from jaxnas.networks.references import resnet20
from jaxnas.topology import macs
from jaxnas.tracing import trace_topology

IMAGES = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)


def test_resnet_20_has_the_published_size(shared):
    truth = json.loads(shared("truth/network_costs.json").read_text())
    expected = truth["ResNet20_CIFAR_optionA"]
    module = resnet20()
    variables = jax.eval_shape(module.init, jax.random.key(0), IMAGES)
    table = trace_topology(module.apply, variables, IMAGES)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert macs(table).sum() == expected["macs"]
    assert parameters == expected["params_trainable"]
