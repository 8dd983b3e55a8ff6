"""Published networks have their published costs."""

import json

import jax
import jax.numpy as jnp
import pytest

from jaxnas import topology
from jaxnas.networks.mobilenet import STAGES, mobilenet_v2
from jaxnas.networks.nasnet import nasnet_a
from jaxnas.networks.references import (
    REFERENCES,
    describe_reference,
    trained_parameters,
)
from jaxnas.networks.residual import ResidualNetwork, cifar_resnet, imagenet_resnet
from jaxnas.networks.vgg import VGG
from jaxnas.tracing import trace_topology

PUBLISHED = {
    "mobilenet_v2": "MobileNetV2_1.0_224",
    "mobilenet_v2_cifar": "MobileNetV2_CIFAR_32 (stem s1, strides 1,1,2,2,1,2,1, "
    "10 cls, no shortcut convs)",
    "nasnet_mobile": "NASNetMobile_224 (NASNet-A 4@1056)",
    "vgg16": "VGG16_224",
    "resnet18": "ResNet18_224",
    "resnet50_keras": "ResNet50_224_keras_v1(stride on 1x1)",
    "resnet18_cifar": "ResNet18_CIFAR_64-512",
    "resnet20": "ResNet20_CIFAR_optionA",
    "resnet20_float": "ResNet20_CIFAR_optionA",
    "resnet20_projection": "ResNet20_CIFAR_optionB",
}
# Trained parameters as publishers of trained networks report them.
OTHERS = {"resnet34": 21_797_672, "vgg19": 143_667_240}


def test_networks_have_their_published_sizes(shared):
    truth = json.loads(shared("truth/network_costs.json").read_text())
    for name, published in PUBLISHED.items():
        network, expected = describe_reference(name), truth[published]
        table = trace_topology(network.module.apply, network.variables, network.images)
        counts = topology.exact_counts(table)
        assert counts.macs.sum() == expected["macs"], name
        assert trained_parameters(network) == expected["params_trainable"], name
        if "macs_depthwise" in expected:
            depthwise = (table.groups > 1) & (table.groups == table.in_channels)
            assert counts.macs[depthwise].sum() == expected["macs_depthwise"]
        if "params_incl_bn_stats" in expected:
            sizes = [leaf.size for leaf in jax.tree.leaves(network.variables)]
            assert sum(sizes) == expected["params_incl_bn_stats"], name


@pytest.mark.parametrize("name", OTHERS)
def test_other_depths_have_their_published_parameters(name):
    assert trained_parameters(describe_reference(name)) == OTHERS[name]


def test_costs_scale_with_images_and_classes():
    """Convolutions with the pixels, the dense layer with the classes."""
    wanted = [(32, 10), (64, 10), (64, 12)]
    found = []
    for image, classes in wanted:
        network = describe_reference("resnet20_float", image=image, classes=classes)
        table = trace_topology(network.module.apply, network.variables, network.images)
        found.append(topology.exact_macs(table))
    dense = 64 * 10
    assert found[1] - dense == 4 * (found[0] - dense)
    assert found[2] - found[1] == 64 * 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: describe_reference("resnet"), "'resnet', did you mean resnet"),
        (lambda: describe_reference("lenet"), "'lenet'.*known are mobilenet_v2, "),
        (lambda: describe_reference("vgg11", classes=0), "0 classes, expected at"),
        (lambda: REFERENCES["vgg11"].build.func(12), "depth 12, expected one of 11"),
        (lambda: imagenet_resnet(20), "depth 20, expected one of 18, 34"),
        (lambda: cifar_resnet(21), "depth 21 for small images, expected 6n"),
        (lambda: mobilenet_v2(0.0), "multiplier of 0.0, expected a positive"),
        (lambda: nasnet_a(4, 1000), "1000 channels.*expected a multiple of 24"),
    ],
)
def test_networks_that_do_not_exist_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


SMALL = {
    "vgg": VGG(blocks=(1, 1), widths=(2, 3), hidden=(4,), classes=5, normalise=True),
    "bottlenecks": ResidualNetwork(
        blocks=(1, 1), widths=(2, 3), classes=5, large_stem=True, bottleneck=True
    ),
    "mobilenet": mobilenet_v2(0.1, 5, stages=STAGES[:3]),
    "nasnet": nasnet_a(1, 96, 5, stem_width=4),
}


@pytest.mark.parametrize("name", SMALL)
def test_statistics_move_in_training_only(name):
    """And shapes are those of the images, odd ones too."""
    module, images = SMALL[name], jax.ShapeDtypeStruct((2, 37, 33, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    logits, moved = jax.eval_shape(
        lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"]),
        variables,
        images,
    )
    assert logits.shape == (2, 5)
    assert jax.tree.structure(moved["batch_stats"]) == jax.tree.structure(
        variables["batch_stats"]
    )
