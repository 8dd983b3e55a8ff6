"""Published networks have their published costs."""

import json

import pytest

from jaxnas.networks.references import (
    REFERENCES,
    describe_reference,
    trained_parameters,
)
from jaxnas.topology import macs
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
