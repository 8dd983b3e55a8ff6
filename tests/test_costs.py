"""What is printed of networks is what their tables hold."""

import dataclasses
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from jaxnas.cli import load_config
from jaxnas.costs import print_costs, totals
from jaxnas.hardware import SystolicArray, energy_pj, preset, save
from jaxnas.networks import space as spaces
from jaxnas.networks.references import describe_reference
from jaxnas.networks.space import SearchSpace
from jaxnas.networks.tables import layer_table
from jaxnas.tracing import trace_topology


def printed(target, **options):
    text = io.StringIO()
    print_costs(str(target), console=Console(file=text, width=400), **options)
    return text.getvalue()


def cells(text, start):
    """The cells of the one printed line whose first ones are given."""
    lines = [[c.strip() for c in line.split("│")[1:-1]] for line in text.splitlines()]
    (found,) = [line for line in lines if line[: len(start)] == start]
    return found


def test_layers_and_totals_of_a_reference():
    text = printed("resnet20", classes=7, operations=True)
    assert "resnet20, images of 32x32x3" in text
    found = cells(text, ["1", "convolution 3x3"])
    macs, parameters = 32 * 32 * 27 * 16, 27 * 16 + 16
    live = 32 * 32 * 3 + 32 * 32 * 16
    assert found[2:5] == ["32x32x3", "32x32x16", f"{macs:,}"]
    assert found[5:7] == [str(parameters), "w8 a8 -> a8"]
    assert found[8:] == [f"{live:,}", "0"]
    elementwise = cells(text, ["2", "elementwise"])
    assert elementwise[4:6] == ["0", "0"] and elementwise[9] == f"{32 * 32 * 16:,}"
    assert cells(text, ["MACs"])[1] == f"{40_551_040 - 64 * 3:,}"
    assert cells(text, ["trained parameters"])[1] == f"{269_722 - 65 * 3:,}"
    assert "convolution 3x3, stride 2" in text and "pooling 8x8" in text


def test_words_of_a_float_network_are_as_wide_as_asked_for():
    text = printed("vgg11", image=32, classes=10, bits=4)
    assert cells(text, ["2", "convolution 3x3"])[6] == "w4 a4 -> a4"
    assert cells(text, ["11", "dense"])[4] == f"{4096 * 10:,}"


def test_totals_are_exact_beyond_floats_and_blind_to_vector_operations():
    network = describe_reference("vgg16")
    trace = (network.module.apply, network.variables, network.images)
    array = SystolicArray()
    found = totals(trace_topology(*trace), array)
    assert found["MACs"] == 15_470_264_320 and found["parameters"] == 138_357_544
    again = totals(trace_topology(*trace, vector_operations=True), array)
    assert again == pytest.approx(found, rel=1e-6)
    for name in ("MACs", "parameters"):
        assert again[name] == found[name]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory of two networks, one of them on the front."""
    config = load_config(Path(__file__).parents[1] / "configs" / "digits.py", "smoke")
    space = SearchSpace(
        image=(8, 8, 1),
        classes=10,
        stages=config.space.stages,
        kernels=config.space.kernels,
        expansions=config.space.expansions,
        word_bits=config.space.word_bits,
    )
    folder = tmp_path_factory.mktemp("runs")
    described = {"name": "digits", "config": dataclasses.asdict(config)}
    (folder / "config.json").write_text(json.dumps(described))
    genotype = jax.jit(lambda: spaces.sample(jax.random.key(1), space))()
    table = jax.jit(lambda: layer_table(space, genotype))()
    genotypes = [spaces.smallest(space), genotype]
    records = [
        {"id": number, "genotype": np.asarray(one).tolist(), "architecture": f"net{n}"}
        for n, (number, one) in enumerate(zip((4, 7), genotypes, strict=True))
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "records.jsonl").write_text(lines)
    (folder / "front.csv").write_text("id,generation\n7,0\n")
    return folder, table, config.hardware


def test_networks_of_a_run_in_short_and_one_of_them_in_full(run):
    folder, table, array = run
    expected = list(totals(table, array).values())
    text = printed(folder)
    number, *found, name = cells(text, ["7"])
    assert (number, name) == ("7", "net1") and "net0" not in text
    found = [float(cell.replace(",", "")) for cell in found]
    np.testing.assert_allclose(found, expected, rtol=0.01)
    text = printed(folder, network=7)
    assert text.startswith("net1")
    assert cells(text, ["MACs"])[1] == f"{expected[0]:,}"
    layers = [line for line in text.splitlines() if "w8" in line or "w4" in line]
    assert len(layers) == np.asarray(table.mask).sum()


def test_costs_are_those_of_the_hardware_that_is_named(run, tmp_path):
    folder, table, _ = run
    save(preset("edge"), tmp_path / "own.json")
    for name in ("edge", str(tmp_path / "own.json")):
        text = printed(folder, network=7, hardware=name)
        found = cells(text, ["microjoules, " + preset("edge").name])[1]
        expected = float(energy_pj(table, preset("edge"))) * 1e-6
        np.testing.assert_allclose(float(found), expected, rtol=0.06)
    with pytest.raises(ValueError, match="--hardware=tpuu, expected one of .*edge"):
        printed(folder, hardware="tpuu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(network=4), "no network 4 on the front of .*expected one of 7"),
        (dict(network=7, operations=True), "--operations with a network of a run"),
        (dict(image=32, bits=8), "--image, --bits with .*which is a run: leave"),
    ],
)
def test_options_that_a_run_does_not_have_are_refused(run, options, message):
    with pytest.raises(ValueError, match=message):
        printed(run[0], **options)


def test_a_run_without_a_front_or_a_record_is_refused(run, tmp_path):
    for name in ("config.json", "records.jsonl"):
        (tmp_path / name).write_text((run[0] / name).read_text())
    with pytest.raises(ValueError, match="has not finished"):
        printed(tmp_path)
    (tmp_path / "front.csv").write_text("id\n7\n9\n")
    with pytest.raises(ValueError, match=r"no record of the networks \[9\]"):
        printed(tmp_path)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (
            "mobilenet",
            {},
            "'mobilenet', did you mean mobilenet_v2",
        ),
        ("lenet", {}, "no reference network 'lenet'; known are mobilenet_v2, "),
        (".", {}, "no run directory .*config.json.*the name of a reference network"),
        ("vgg16", dict(image=0), "images of 0 pixels a side and 1000 classes"),
        ("vgg16", dict(bits=99), "words of 99 bits"),
        ("vgg16", dict(network=1), "--network with vgg16, which is a reference"),
    ],
)
def test_targets_that_have_no_costs_are_refused(target, options, message):
    with pytest.raises(ValueError, match=message):
        printed(target, **options)
