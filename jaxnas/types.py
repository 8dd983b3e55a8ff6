"""Role names for annotations, and the axis words that the whole package shares.

Shapes are spelt with jaxtyping. One word means one thing everywhere:

    batch       images evaluated together      layers      rows of a layer table
    height      rows of a feature map          genes       entries of a genotype
    width       columns of a feature map       population  individuals
    channels    features of a map              objectives  columns of a fitness matrix
    bits        bits of a memory word          trials      repetitions of an experiment
"""

import numpy as np
from jaxtyping import Array, Float32, Int32, PRNGKeyArray, UInt

Key = PRNGKeyArray
"""A single random key, consumed once."""

Values = Float32[Array | np.ndarray, "..."]
"""Real numbers, as networks compute with them."""

Words = UInt[Array | np.ndarray, "..."]
"""Memory words: unsigned integers of which a format uses the lowest `bits` bits."""

Scale = float | int | np.float32 | Float32[Array | np.ndarray, "..."]
"""What one unit of a number format stands for: a positive scalar, or an array of
the rank of the values that broadcasts against them (per channel: (1, 1, 1, C))."""

Genotype = Int32[Array | np.ndarray, " genes"]
"""One point of a search space."""
