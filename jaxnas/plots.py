"""Figures of a search: plain arrays in, PNG files out; nothing is computed here.

Every function draws on a figure of its own, without pyplot, so that no display, no
backend and no global style is touched.
"""

import math
import os
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
}
BLUE, ORANGE, GREY = "#1f5fa8", "#d9730d", "#b8b8b8"

Path = str | os.PathLike
Values = Float[np.ndarray, " networks"]


def quantity_label(name: str) -> str:
    """The name of an objective as an axis says it: `weight (bytes)`, `MACs`."""
    name = name.replace("macs", "MACs").replace("dram", "DRAM")
    *words, last = name.split("_")
    if words and last in ("bytes", "bits", "cycles", "pj", "us", "mm2"):
        return f"{' '.join(words)} ({last.replace('pj', 'pJ').replace('us', 'µs')})"
    return name.replace("_", " ")


def plot_front(
    path: Path,
    error: Values,
    others: dict[str, Values],
    on_front: Bool[np.ndarray, " networks"],
) -> None:
    """Validation error against every other objective, the front over all networks."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _grid(len(others), columns=4, size=(2.1, 1.9), sharey=True)
        for ax, (name, values) in zip(axes, others.items(), strict=True):
            styles = ((~on_front, GREY, 7, "evaluated"), (on_front, BLUE, 16, "front"))
            for rows, colour, area, label in styles:
                x, y = values[rows], error[rows]
                ax.scatter(x, y, area, colour, linewidths=0, label=label, alpha=0.85)
            _spread(ax, "x", values)
            ax.set_xlabel(quantity_label(name))
        for ax in axes[::4]:
            ax.set_ylabel("validation error")
        _spread(axes[0], "y", error)
        axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        _legend_above(figure, axes[0])
        _write(figure, path)


def plot_parallel(path: Path, quantities: dict[str, Values]) -> None:
    """Every network as a line over all quantities, shaded by the first one.

    Each axis runs from the least to the largest value, in logarithms if these are
    positive and more than a factor of ten apart.
    """
    scales = [_unit_scale(values) for values in quantities.values()]
    heights = np.stack(scales, axis=1)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure, (ax,) = _grid(1, 1, (max(3.0, 0.75 * len(quantities)), 2.6))
        colours = matplotlib.colormaps["viridis"](0.95 * heights[:, 0])
        for line, colour in zip(heights, colours, strict=True):
            ax.plot(line, color=colour, linewidth=0.9, alpha=0.9)
        for place, values in enumerate(quantities.values()):
            ax.axvline(place, color=GREY, linewidth=0.6, zorder=0)
            for height, end in ((-0.03, np.nanmin(values)), (1.03, np.nanmax(values))):
                align = "top" if height < 0 else "bottom"
                ax.text(place, height, f"{end:.3g}", ha="center", va=align, size=6)
        names = [quantity_label(name) for name in quantities]
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
        ax.set(ylim=(-0.12, 1.12), yticks=[])
        ax.spines[:].set_visible(False)
        _write(figure, path)


def _unit_scale(values: np.ndarray) -> np.ndarray:
    """The values between 0 and 1."""
    finite = values[np.isfinite(values)]
    if finite.size and finite.min() > 0 and finite.max() > 10 * finite.min():
        values, finite = np.log(values), np.log(finite)
    least, largest = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    return (values - least) / max(float(largest - least), 1e-30)


def plot_family(
    path: Path,
    generation: Int[np.ndarray, " networks"],
    error: Values,
    parents: list[list[int]],
    on_front: Bool[np.ndarray, " networks"],
) -> None:
    """Networks by generation and validation error, with a line to each parent.

    parents: rows of the networks that each descends from.
    """
    with matplotlib.rc_context(STYLE):
        figure, (ax,) = _grid(1, 1, (4.4, 2.6))
        for child, rows in enumerate(parents):
            for parent in rows:
                ends = [parent, child]
                ax.plot(generation[ends], error[ends], color=GREY, lw=0.7, zorder=1)
        styles = ((~on_front, GREY, 12, "ancestor"), (on_front, BLUE, 18, "front"))
        for rows, colour, area, label in styles:
            x, y = generation[rows], error[rows]
            ax.scatter(x, y, area, colour, linewidths=0, label=label, zorder=2)
        _spread(ax, "y", error)
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="generation", ylabel="validation error")
        _legend_above(figure, ax)
        _write(figure, path)


class Curve(NamedTuple):
    """Accuracy of one network over rates of bit errors, with intervals."""

    rates: Float[np.ndarray, " rates"]
    accuracy: Float[np.ndarray, " rates"]
    low: Float[np.ndarray, " rates"]
    high: Float[np.ndarray, " rates"]
    shade: float


def plot_fault_curves(
    path: Path, panels: dict[str, list[Curve]], *, shade_label: str
) -> None:
    """Accuracy against the rate of faults; one curve and band per network, by shade.

    All curves of all panels share one colour scale, logarithmic for positive shades.
    """
    shades = [curve.shade for curves in panels.values() for curve in curves]
    with matplotlib.rc_context(STYLE):
        figure, axes = _grid(len(panels), 2, (3.0, 2.2), sharex=True, sharey=True)
        scale = LogNorm if min(shades) > 0 else Normalize
        colours = ScalarMappable(scale(min(shades), max(shades)), "viridis")
        for ax, (title, curves) in zip(axes, panels.items(), strict=True):
            for rates, accuracy, low, high, shade in curves:
                colour = colours.to_rgba(shade)
                ax.fill_between(rates, low, high, color=colour, alpha=0.2, linewidth=0)
                if rates.size == 1:  # over which a band has no width
                    ax.vlines(rates, low, high, color=colour, alpha=0.5, linewidth=0.9)
                ax.plot(rates, accuracy, "o-", color=colour, markersize=2.5, lw=0.9)
            ax.set_xscale("log")
            ax.set_title(title)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        _label_outer(figure, "fault rate", "accuracy")
        bar = figure.colorbar(colours, ax=axes, aspect=40, pad=0.01)
        bar.set_label(shade_label)
        bar.outline.set_visible(False)
        _write(figure, path)


class HeatMap(NamedTuple):
    """A share for every layer and bit position, lowest bit first; NaN is no bit."""

    layers: list[str]
    shares: Float[np.ndarray, "layers bits"]


def plot_heat_maps(
    path: Path, panels: dict[str, HeatMap], *, share_label: str, columns: int = 2
) -> None:
    """Layer against bit position, highest bit on the left; one colour scale for all."""
    rows = max(len(panel.layers) for panel in panels.values())
    most = max(np.nanmax(panel.shares) for panel in panels.values())
    scale = Normalize(0, most or 1)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure, axes = _grid(len(panels), columns, (3.4, 0.8 + 0.16 * rows))
        for ax, (title, panel) in zip(axes, panels.items(), strict=True):
            bits = panel.shares.shape[1]
            edges = np.arange(bits + 1) - 0.5, np.arange(len(panel.layers) + 1) - 0.5
            ax.pcolormesh(*edges, panel.shares, norm=scale, cmap="viridis")
            ax.set(xlim=(bits - 0.5, -0.5), ylim=(len(panel.layers) - 0.5, -0.5))
            ax.set_yticks(range(len(panel.layers)), panel.layers)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.set_title(title)
        _label_outer(figure, "bit position (0 is the lowest)", "layer")
        colours = ScalarMappable(scale, "viridis")
        bar = figure.colorbar(colours, ax=axes, aspect=40, pad=0.01)
        bar.set_label(share_label)
        bar.outline.set_visible(False)
        _write(figure, path)


class Comparison(NamedTuple):
    """A prediction and a measurement of the same networks, with intervals."""

    predicted: Values
    measured: Values
    low: Values
    high: Values


def plot_agreement(
    path: Path, panels: dict[str, Comparison], *, columns: int = 3
) -> None:
    """Accuracy lost to faults against the fragility that the topology predicts."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _grid(len(panels), columns, (2.3, 1.9))
        for ax, (title, panel) in zip(axes, panels.items(), strict=True):
            predicted, measured, low, high = panel
            # An interval around another estimate may miss the mean by rounding.
            errors = np.maximum([measured - low, high - measured], 0)
            style = {"fmt": "o", "color": BLUE, "ms": 3, "mew": 0, "elinewidth": 0.6}
            ax.errorbar(predicted, measured, errors, **style)
            _spread(ax, "x", predicted)
            ax.set_title(title)
            ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        _label_outer(figure, "predicted fragility", "accuracy lost")
        _write(figure, path)


def plot_latency(path: Path, predicted: dict[str, Values], measured: Values) -> None:
    """Measured latency in microseconds against predicted ones, a panel for each."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _grid(len(predicted), len(predicted), (2.1, 1.9), sharey=True)
        for ax, (name, values) in zip(axes, predicted.items(), strict=True):
            ends = [
                min(values.min(), measured.min()),
                max(values.max(), measured.max()),
            ]
            ax.plot(ends, ends, color=GREY, linewidth=0.8)
            ax.scatter(values, measured, s=6, color=BLUE, linewidth=0)
            ax.set_title(name.replace("_", " "))
        _label_outer(figure, "predicted latency (µs)", "measured latency (µs)")
        _write(figure, path)


def plot_progress(
    path: Path,
    evaluated: Int[np.ndarray, " generations"],
    hypervolume: Float[np.ndarray, " generations"],
    best_error: Float[np.ndarray, " generations"],
) -> None:
    """Hypervolume and smallest validation error against networks evaluated."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _grid(2, 2, (3.0, 2.2), sharex=True)
        style = {"marker": "o", "markersize": 2.5, "linewidth": 0.9}
        axes[0].plot(evaluated, hypervolume, color=BLUE, **style)
        axes[0].set_ylabel("hypervolume")
        axes[1].plot(evaluated, best_error, color=ORANGE, **style)
        axes[1].set_ylabel("smallest validation error")
        axes[1].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        for ax in axes:
            ax.set_xlabel("networks evaluated")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        _write(figure, path)


def _grid(count: int, columns: int, size: tuple[float, float], **shared):
    """A figure with `count` axes in rows of `columns`, `size` inches each."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(columns * size[0], rows * size[1]))
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def _spread(ax, direction: str, values: np.ndarray) -> None:
    """A logarithmic scale for positive values over more than a factor of ten."""
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() <= 0 or finite.max() <= 10 * finite.min():
        return
    ax.set(**{f"{direction}scale": "log"})
    axis = getattr(ax, f"{direction}axis")
    axis.set_minor_formatter(NullFormatter())
    if finite.max() < 100 * finite.min():
        # Powers of ten alone could leave a single labelled tick.
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter("{x:g}")


def _legend_above(figure, ax) -> None:
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))


def _label_outer(figure, x: str, y: str) -> None:
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)


def _write(figure, path: Path) -> None:
    figure.savefig(path, format="png", metadata={"Software": None})
