"""A compact network in integers, as a chip without floating-point units computes it.

NumPy and the network's description only; nothing of the library. Operands are words of
at most eight bits, sums fit 32 bits, normalisation is folded into kernels and 16-bit
biases, and maps are requantised by shifts that round half to even. An integer array
stands for `words * 2**exponent`; exponents are per output channel where kernels are.

Logarithmic operands are the antilogarithms of their words: a table of powers in binary
fractions. A product with one is the other operand, shifted once for every one of its
bits and added; maps become words again by comparison with the table.
"""

from typing import NamedTuple

import numpy as np

VARIANCE_FLOOR = np.float32(1e-3)
SMALLEST_PEAK = 2.0**-20
ACTIVATION_EXPONENT = 2  # maps hold magnitudes up to four
BIAS_BITS = 16


class Words(NamedTuple):
    """Integers and the binary exponent of their unit."""

    words: np.ndarray
    exponent: np.ndarray | int


def logits(spec, variables, images, sums=None):
    """Integer logits `[batch, classes]` and their exponents `[classes]`.

    `spec` is the network's description, `variables` its parameters and statistics as
    NumPy arrays, `images` are uint8. Every accumulator is appended to `sums`.
    """
    sums = [] if sums is None else sums
    params, statistics = variables["params"], variables["batch_stats"]
    stem = params["stem"], statistics["stem"], spec.stem_words
    x = _layer(Words(images, -8), *stem, sums, spec.scheme)
    for stage, blocks in enumerate(spec.stages):
        x = x._replace(words=_max_pool(x.words)) if stage else x
        for index, block in enumerate(blocks):
            name = f"stage{stage}_block{index}"
            x = _block(block, x, params[name], statistics[name], sums, spec.scheme)
    return _head(x, params["head"], spec.head_weight_bits, sums, spec.scheme)


def resnet_logits(module, variables, images, sums=None):
    """The same of a `ResNet` module, whose blocks are two layers and a shortcut."""
    sums = [] if sums is None else sums
    params, statistics = variables["params"], variables["batch_stats"]

    def layer(x, path, **options):
        one, moments = params, statistics
        for name in path:
            one, moments = one[name], moments[name]
        return _layer(x, one, moments, module.words, sums, module.scheme, **options)

    x = layer(Words(images, -8), ["stem"])
    for stage in range(len(module.widths)):
        for index in range(module.blocks):
            stride = 2 if stage and not index else 1
            name = f"stage{stage}_block{index}"
            shortcut = x._replace(words=x.words[:, ::stride, ::stride])
            y = layer(x, [name, "first"], stride=stride)
            x = layer(y, [name, "second"], shortcut=shortcut)
    return _head(x, params["head"], module.words.weight, sums, module.scheme)


def _head(x, params, bits, sums, scheme):
    area = x.words.shape[1] * x.words.shape[2]
    pooled = Words(
        x.words.astype(np.int64).sum((1, 2)), x.exponent - (area - 1).bit_length()
    )
    kernel = _encode_kernel(params["kernel"], bits, scheme)
    exponent = kernel.exponent + pooled.exponent
    bias = _encode_bias(params["bias"], exponent)
    product = _product(pooled.words, kernel.words, scheme)
    return Words(_accumulator(product + bias.words, sums), exponent)


def _block(block, x, params, statistics, sums, scheme):
    shortcut = x if block.residual else None

    def layer(name, x, **options):
        one = params[name], statistics[name]
        return _layer(x, *one, block.words, sums, scheme, **options)

    if block.operation == "convolution":
        return layer("spatial", x, shortcut=shortcut)
    linear = block.operation == "inverted"
    if linear:
        x = layer("expand", x)
    x = layer("depthwise", x, depthwise=True)
    return layer("project", x, shortcut=shortcut, rectify=not linear)


def _layer(
    x,
    params,
    statistics,
    bits,
    sums,
    scheme,
    *,
    shortcut=None,
    rectify=True,
    depthwise=False,
    stride=1,
):
    kernel, bias = fold(**params, **statistics)
    kernel = _encode_kernel(kernel, bits.weight, scheme)
    exponent = kernel.exponent + x.exponent
    bias = _encode_bias(bias, exponent)
    total = _convolve(x.words, kernel.words, depthwise, stride, scheme) + bias.words
    total = _accumulator(total, sums)
    if shortcut is not None:
        padding = total.shape[-1] - shortcut.words.shape[-1]
        words = np.pad(shortcut.words.astype(np.int64), [(0, 0)] * 3 + [(0, padding)])
        common = np.minimum(exponent, shortcut.exponent)
        total = shift(total, exponent - common)
        total = total + shift(words, shortcut.exponent - common)
        total, exponent = _accumulator(total, sums), common
    if rectify:
        total = np.maximum(total, 0)
    return _store_map(Words(total, exponent), bits.activation, rectify, scheme)


def _store_map(x, bits, rectify, scheme):
    if scheme == "logarithmic":
        size = np.ldexp(np.float64(x.words), x.exponent - ACTIVATION_EXPONENT)
        return antilogarithm(size, bits, not rectify, ACTIVATION_EXPONENT)
    unit = ACTIVATION_EXPONENT - (bits if rectify else bits - 1)
    return Words(_clip(shift(x.words, x.exponent - unit), bits, rectify), unit)


def antilogarithm(x, bits, signed, exponent):
    """What is read from the words that store x, in units of `2**exponent`.

    Half-way in the logarithm the smaller magnitude is stored; all of x are exact.
    """
    largest = 2 ** (bits - signed) - 1
    steps = next(n for n in (2, 4, 8, 16, 32, 64) if largest / n <= 8)
    fraction = 8 if signed else 9
    powers = 2.0 ** ((np.arange(1, largest + 1) - largest) / steps)
    table = np.unique(np.rint(powers * 2**fraction)).astype(np.int64)
    least = min(powers[0], table[0] / 2.0**fraction) / 2 ** (0.5 / steps)
    middle = np.sqrt(table[1:] * table[:-1]) / 2.0**fraction
    level = np.searchsorted(np.concatenate([[least], middle]), np.abs(x), side="left")
    magnitude = np.concatenate([[0], table])[level]
    words = np.where(x < 0, -magnitude if signed else 0, magnitude)
    return Words(words, exponent - fraction)


def fold(kernel, gain, offset, mean, variance):
    """Kernel and bias that convolve and normalise at once, in float32."""
    deviation = np.sqrt(variance + VARIANCE_FLOOR)
    return kernel * (gain / deviation), offset - mean * gain / deviation


def _encode_kernel(kernel, bits, scheme):
    """What is read from the kernel's words, one exponent for each output channel."""
    axes = tuple(range(kernel.ndim - 1))
    exponent = ceil_log2(np.abs(kernel).max(axes))
    if scheme == "logarithmic":
        return antilogarithm(np.ldexp(np.float64(kernel), -exponent), bits, 1, exponent)
    exponent = exponent - (bits - 1)
    words = np.rint(np.ldexp(np.float64(kernel), -exponent))
    return Words(_clip(words, bits, unsigned=False), exponent)


def _encode_bias(bias, accumulator):
    """16-bit words, shifted into the unit of each channel's accumulator."""
    unit = ceil_log2(np.abs(bias).max()) - (BIAS_BITS - 1)
    unit = np.maximum(unit, accumulator)
    words = np.rint(np.ldexp(np.float64(bias), -unit))
    words = _clip(words, BIAS_BITS, unsigned=False).astype(np.int64)
    return Words(shift(words, unit - accumulator), accumulator)


def ceil_log2(peak):
    """The exponent of the least power of two that is not below the peak."""
    mantissa, exponent = np.frexp(np.maximum(peak, SMALLEST_PEAK))
    return exponent - (mantissa == 0.5)


def shift(words, left):
    """`words * 2**left` in integers; to the right it rounds half to even."""
    left = np.broadcast_to(left, np.shape(words))
    right = np.maximum(-left, 0)
    quotient = words >> right
    remainder = words - (quotient << right)
    double = 2 * remainder - (1 << right)  # twice the distance from one half
    up = (right > 0) & ((double > 0) | ((double == 0) & (quotient % 2 == 1)))
    return (quotient + up) << np.maximum(left, 0)


def _clip(words, bits, unsigned):
    if unsigned:
        dtype, low, high = np.uint8, 0, 2**bits - 1
    else:
        dtype, low, high = np.int8, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return np.clip(words, low, high).astype(dtype if bits <= 8 else np.int16)


def _accumulator(total, sums):
    if np.abs(total).max() >= 2**31:
        raise OverflowError(f"a sum of {np.abs(total).max()} leaves 32 bits")
    sums.append(total)
    return total


def _convolve(words, kernel, depthwise, stride, scheme):
    """Zero padding by half the kernel; words of some bits, sums of 64."""
    margin = kernel.shape[0] // 2
    border = [(0, 0), (margin, margin), (margin, margin), (0, 0)]
    padded = np.pad(words, border).astype(np.int64)
    height, width = words.shape[1:3]
    total = 0
    for row, column in np.ndindex(kernel.shape[:2]):
        window = padded[:, row : row + height, column : column + width]
        window = window[:, ::stride, ::stride]
        tap = kernel[row, column]
        if depthwise:
            total = total + window * tap[0].astype(np.int64)
        else:
            total = total + _product(window, tap, scheme)
    return total


def _product(rows, matrix, scheme):
    """`rows @ matrix`; for logarithmic words by shifts and additions alone."""
    if scheme != "logarithmic":
        return rows.astype(np.int64) @ matrix.astype(np.int64)
    total = 0
    for bit in range(int(np.abs(matrix).max()).bit_length()):
        chosen = np.sign(matrix) * ((np.abs(matrix) >> bit) & 1)
        # A sum of those operands that a word has a one for, or takes with a minus.
        total = total + ((rows @ chosen) << bit)
    return total


def _max_pool(words):
    """Maxima of words are words: 2x2, stride 2, an odd last row or column dropped."""
    height, width = words.shape[1] // 2 * 2, words.shape[2] // 2 * 2
    rows = [words[:, row:height:2, :width] for row in (0, 1)]
    rows = np.maximum(*rows)
    return np.maximum(rows[:, :, 0::2], rows[:, :, 1::2])
