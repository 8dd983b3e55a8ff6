"""Which small networks recognise handwritten digits, cheaply and despite bit errors?

Data: scikit-learn's 1,797 grey 8x8 digits, embedded; no download.
Command: jaxnas search configs/digits.py
Expected on two CPU cores: three to eight minutes, compilation included; a front of some
16 networks, the best near 98 % test accuracy with 8-bit words.
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
    return SearchConfig(
        data=DataConfig(path="digits"),
        space=SpaceConfig(
            stages=(
                Stage(widths=(4, 8, 12, 16), blocks=1),
                Stage(widths=(8, 16, 24), blocks=2),
                Stage(widths=(16, 24, 32), blocks=1),
            ),
        ),
        evolution=EvolutionConfig(generations=8, initial=16, children=8),
        faults=FaultConfig(images=16),
    )


def smoke() -> SearchConfig:
    """The same path in well under a minute, compilation aside."""
    full = config()
    return dataclasses.replace(
        full,
        data=dataclasses.replace(full.data, limit=64),
        space=SpaceConfig(stages=(Stage(widths=(4, 8), blocks=1),), kernels=(3,)),
        evolution=EvolutionConfig(
            generations=2, initial=4, population=8, proposals=64, children=4
        ),
        training=TrainingConfig(
            initial_steps=4, child_steps=4, final_steps=4, batch=16
        ),
        faults=FaultConfig(trials=4, images=8),
    )
