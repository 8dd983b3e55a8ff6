"""Which networks tell CIFAR-10's objects apart, cheaply and despite bit errors?

Data: a folder of parquet files in the Hugging Face layout, or the hub's own name (needs
`pip install 'jaxnas[datasets]'`).
Command: jaxnas search configs/cifar10.py --data.path=FOLDER
"""

import dataclasses

from jaxnas.config import (
    DataConfig,
    EvolutionConfig,
    FaultConfig,
    SearchConfig,
    SpaceConfig,
    TrainingConfig,
)
from jaxnas.networks.space import Stage


def config() -> SearchConfig:
    """Maps of 32x32, 16x16 and 8x8."""
    return SearchConfig(
        data=DataConfig(path="uoft-cs/cifar10", validation_share=0.1),
        space=SpaceConfig(
            stages=(
                Stage(widths=(16, 24, 32), blocks=2),
                Stage(widths=(32, 48, 64), blocks=3),
                Stage(widths=(64, 96, 128), blocks=3),
            ),
            expansions=(2, 4),
        ),
        evolution=EvolutionConfig(generations=40, initial=16, children=8),
        training=TrainingConfig(
            initial_steps=4000,
            child_steps=2000,
            final_steps=40000,
            learning_rate=5e-3,
            final_learning_rate=5e-3,
            batch=128,
            shift=4,
            flip=True,
        ),
    )


def smoke() -> SearchConfig:
    """The same path in a minute or two, most of it compilation."""
    full = config()
    return dataclasses.replace(
        full,
        data=dataclasses.replace(full.data, limit=64),
        space=SpaceConfig(stages=(Stage(widths=(2, 4), blocks=1),), kernels=(3,)),
        evolution=EvolutionConfig(
            generations=1, initial=4, population=8, proposals=64, children=4
        ),
        training=TrainingConfig(
            initial_steps=4, child_steps=4, final_steps=4, batch=16
        ),
        faults=FaultConfig(trials=4, images=8),
    )
