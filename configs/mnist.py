"""Which networks read MNIST's digits, cheaply and despite bit errors?

Data: a folder of parquet files in the Hugging Face layout, or the hub's own name (needs
`pip install 'jaxnas[datasets]'`).
Command: jaxnas search configs/mnist.py --data.path=FOLDER
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
    """Maps of 28x28, 14x14 and 7x7."""
    return SearchConfig(
        data=DataConfig(path="ylecun/mnist", validation_share=0.1),
        space=SpaceConfig(
            stages=(
                Stage(widths=(4, 8, 12, 16), blocks=1),
                Stage(widths=(8, 16, 24, 32), blocks=2),
                Stage(widths=(16, 32, 48), blocks=2),
            ),
        ),
        evolution=EvolutionConfig(generations=20, initial=16, children=8),
        training=TrainingConfig(
            initial_steps=600,
            child_steps=400,
            final_steps=4000,
            learning_rate=1e-2,
            final_learning_rate=5e-3,
            batch=64,
            shift=2,
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
