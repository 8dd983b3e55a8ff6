"""What is drawn is what was given, and degenerate data draw without complaint."""

import numpy as np
import pytest
from PIL import Image

from jaxnas import plots

NAN = float("nan")


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Collects the figures; also writes each, so that layout warnings show."""
    figures, write = [], plots._write

    def keep(figure, path):
        figures.append(figure)
        write(figure, path)

    monkeypatch.setattr(plots, "_write", keep)
    return figures


@pytest.mark.parametrize(
    "name, label",
    [
        ("weight_bytes", "weight (bytes)"),
        ("energy_pj", "energy (pJ)"),
        ("validation_error", "validation error"),
        ("macs", "MACs"),
        ("dram_bytes", "DRAM (bytes)"),
    ],
)
def test_units_are_named(name, label):
    assert plots.quantity_label(name) == label


def test_front_shows_every_network_once_on_fitting_scales(drawn, tmp_path):
    rng = np.random.default_rng(0)
    error, front = rng.uniform(0.01, 0.05, 20), np.arange(20) < 5
    others = {"weight_bytes": np.geomspace(10, 1000, 20), "depth": rng.random(20) + 1}
    plots.plot_front(tmp_path / "f.png", error, others, front)
    for ax, (name, values) in zip(drawn[0].axes, others.items(), strict=True):
        evaluated, best = (np.asarray(c.get_offsets()) for c in ax.collections)
        np.testing.assert_array_equal(best, np.stack([values, error], 1)[:5])
        np.testing.assert_array_equal(evaluated, np.stack([values, error], 1)[5:])
        assert ax.get_xscale() == ("log" if name == "weight_bytes" else "linear")


def test_fault_curves_carry_their_bands(drawn, tmp_path):
    rates = np.array([1e-4, 1e-3, 1e-2])
    accuracy = np.array([0.9, 0.8, 0.5])
    curves = [
        plots.Curve(rates, accuracy - d, accuracy - d - 0.02, accuracy - d + 0.01, s)
        for d, s in [(0.0, 100.0), (0.1, 3000.0)]
    ]
    panels = {"weights": curves, "activations": curves[:1]}
    plots.plot_fault_curves(tmp_path / "f.png", panels, shade_label="size")
    for ax, shown in zip(drawn[0].axes[:2], panels.values(), strict=True):
        for line, band, curve in zip(ax.lines, ax.collections, shown, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), curve.accuracy)
            corners = {tuple(point) for point in band.get_paths()[0].vertices}
            edges = [*curve.low, *curve.high]
            expected = set(zip([*rates, *rates], edges, strict=True))
            assert expected <= corners
    first, second = (line.get_color() for line in drawn[0].axes[0].lines)
    assert first != second


def test_heat_maps_show_every_share_at_its_bit_and_layer(drawn, tmp_path):
    shares = np.array([[0.25, 0.5, 1.0], [0.125, NAN, NAN]])
    panels = {"weights": plots.HeatMap(["stem", "head"], shares)}
    panels["none"] = plots.HeatMap(["stem"], np.zeros((1, 2)))
    plots.plot_heat_maps(tmp_path / "h.png", panels, share_label="SDC-1")
    for ax, panel in zip(drawn[0].axes, panels.values(), strict=False):
        (mesh,) = ax.collections
        np.testing.assert_array_equal(mesh.get_array().filled(NAN), panel.shares)
        assert [label.get_text() for label in ax.get_yticklabels()] == panel.layers
        assert ax.xaxis_inverted() and ax.yaxis_inverted()
        assert mesh.norm.vmin == 0 and mesh.norm.vmax == 1


def test_agreement_and_progress_show_the_given_points(drawn, tmp_path):
    x, y = np.array([1.0, 2, 30]), np.array([0.1, 0.2, 0.3])
    panel = plots.Comparison(x, y, y - 0.05, y + 0.02)
    plots.plot_agreement(tmp_path / "a.png", {"one": panel, "two": panel}, columns=2)
    for ax in drawn[0].axes:
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.stack([x, y], 1))
        bars = ax.collections[0].get_segments()
        np.testing.assert_allclose(
            [b[:, 1] for b in bars], np.stack([y - 0.05, y + 0.02], 1)
        )
    plots.plot_progress(tmp_path / "p.png", np.array([4, 8, 12]), y, 1 - y)
    left, right = drawn[1].axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), y)
    np.testing.assert_array_equal(right.lines[0].get_ydata(), 1 - y)


def test_parallel_axes_and_families_show_the_given_networks(drawn, tmp_path):
    error, size = np.array([0.1, 0.2, 0.3]), np.array([1.0, 10.0, 100.0])
    plots.plot_parallel(tmp_path / "p.png", {"error": error, "size": size})
    heights = [line.get_ydata() for line in drawn[0].axes[0].lines[:3]]
    np.testing.assert_allclose(heights, [[0, 0], [0.5, 0.5], [1, 1]], atol=1e-12)
    texts = {text.get_text() for text in drawn[0].axes[0].texts}
    assert texts == {"0.1", "0.3", "1", "100"}

    generation, front = np.array([0, 1, 2]), np.array([False, False, True])
    plots.plot_family(tmp_path / "f.png", generation, error, [[], [0], [1]], front)
    (ax,) = drawn[1].axes
    edges = [line.get_xydata().tolist() for line in ax.lines]
    assert edges == [[[0, 0.1], [1, 0.2]], [[1, 0.2], [2, 0.3]]]
    np.testing.assert_array_equal(ax.collections[1].get_offsets(), [[2, 0.3]])


@pytest.mark.parametrize(
    "values", [[0.0], [0.0, 0.0], [2.0, 2.0], [1.0, NAN], [-1.0, 3.0]]
)
def test_degenerate_values_still_give_a_picture(values, tmp_path):
    values = np.array(values)
    flags = np.arange(len(values)) < 1
    plots.plot_front(tmp_path / "f.png", values, {"a": values, "b": values}, flags)
    panel = plots.Comparison(values, values, values, values)
    plots.plot_agreement(tmp_path / "a.png", {"one": panel}, columns=3)
    rate = np.array([1e-3])
    curves = [plots.Curve(rate, rate, rate, rate, abs(v)) for v in values[:1]]
    plots.plot_fault_curves(tmp_path / "c.png", {"one": curves}, shade_label="s")
    plots.plot_progress(tmp_path / "p.png", np.arange(len(values)), values, values)
    plots.plot_parallel(tmp_path / "l.png", {"a": values, "b": values})
    number = np.arange(len(values))
    parents = [[0] for _ in values]
    plots.plot_family(tmp_path / "t.png", number, values, parents, flags)
    for name in "facplt":
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        assert pixels.min() < 100 and pixels.max() == 255
