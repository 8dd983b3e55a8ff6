"""Typed settings from text, and what is said when the text does not fit."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest

from jaxnas.overrides import leaves, override, split_arguments


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    low: int = 1
    high: int = 5
    name: str = "n"

    def __post_init__(self):
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}, not below high {self.high}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner = Inner()
    rates: tuple[float, ...] = (0.1, 0.2)
    mode: Literal["os", "ws"] = "os"
    limit: int | None = None
    flip: bool = False
    learning_rate: float = 1e-3
    where: Path = Path(".")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stages:
    stages: tuple[Inner, ...] = (Inner(), Inner(high=7))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    rows: Any = 16
    clock: Any = 1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    out: str = "x"


def test_settings_are_the_leaves_of_nested_dataclasses():
    found = leaves(Outer(inner=Inner(low=3)))
    assert list(found)[:4] == ["inner.low", "inner.high", "inner.name", "rates"]
    assert found["inner.low"] == (int, 3)


def test_arguments_are_told_from_settings():
    text = "a.py --x=1 b.py --many 1 2 --flag c.py --my-key -3 --flag=no --empty="
    alone, settings = split_arguments(text.split(), {"flag"})
    assert alone == ["a.py", "b.py", "c.py"]
    expected = {"x": ["1"], "many": ["1", "2"], "flag": ["no"], "my_key": ["-3"]}
    assert settings == expected | {"empty": [""]}


def test_what_may_be_an_array_is_a_number_in_text():
    (found,) = override((Chip(),), {"rows": ["8"], "clock": ["2.5e6"]})
    assert found == Chip(rows=8, clock=2.5e6) and type(found.rows) is int
    with pytest.raises(ValueError, match="--rows is 'x', expected int . float"):
        override((Chip(),), {"rows": ["x"]})


@pytest.mark.parametrize(
    "text, key, value",
    [
        ("--inner.low=2", "inner.low", 2),
        ("--inner.low -7", "inner.low", -7),
        ("--inner.name=a=b", "inner.name", "a=b"),
        ("--inner.name=", "inner.name", ""),
        ("--rates=1e-4,1e-3", "rates", (1e-4, 1e-3)),
        ("--rates 1e-4 1e-3", "rates", (1e-4, 1e-3)),
        ("--rates=", "rates", ()),
        ("--mode=ws", "mode", "ws"),
        ("--limit=7", "limit", 7),
        ("--limit=None", "limit", None),
        ("--flip", "flip", True),
        ("--flip=true", "flip", True),
        ("--flip=False", "flip", False),
        ("--learning-rate=-1e-3", "learning_rate", -1e-3),
        ("--learning_rate=2", "learning_rate", 2.0),
        ("--where=/a/b", "where", Path("/a/b")),
    ],
)
def test_a_text_becomes_a_value_of_its_type_and_nothing_else_changes(text, key, value):
    before = Outer(flip="--flip=F" in text, limit=5)
    _, settings = split_arguments(text.split(" "))
    (after,) = override((before,), settings)
    expected = {name: leaf.value for name, leaf in leaves(before).items()}
    found = {name: leaf.value for name, leaf in leaves(after).items()}
    assert found == expected | {key: value}
    assert type(found[key]) is type(value)


def test_values_that_depend_on_each_other_change_together():
    (after,) = override((Outer(),), {"inner.low": ["8"], "inner.high": ["9"]})
    assert after.inner == Inner(low=8, high=9)
    with pytest.raises(ValueError, match="low is 8, not below high 5"):
        override((Outer(),), {"inner.low": ["8"]})


def test_dataclasses_in_a_tuple_are_counted():
    assert leaves(Stages())["stages.1.high"] == (int, 7)
    (after,) = override((Stages(),), {"stages.1.low": ["6"]})
    assert after == Stages(stages=(Inner(), Inner(low=6, high=7)))
    with pytest.raises(ValueError, match="did you mean --stages.0.low?"):
        override((Stages(),), {"stages.0.lo": ["1"]})
    with pytest.raises(ValueError, match="unknown key --stages.2.low, did you mean"):
        override((Stages(),), {"stages.2.low": ["1"]})


def test_several_dataclasses_share_the_keys():
    options, config = override((Options(), Outer()), {"out": ["y"], "limit": ["2"]})
    assert options == Options(out="y") and config == Outer(limit=2)
    same = Outer()
    assert override((same,), {}) == (same,)


@pytest.mark.parametrize(
    "key, texts, message",
    [
        ("inner.lwo", ["1"], "unknown key --inner.lwo, did you mean --inner.low?"),
        ("high", ["1"], "unknown key --high, did you mean --inner.high?"),
        ("training.hihg", ["1"], "did you mean --inner.high?"),
        ("rate", ["1"], "did you mean --rates?"),
        ("inner.depth", ["1"], "one of --inner.low, --inner.high, --inner.name?"),
        ("zzzzzz", ["1"], "unknown key --zzzzzz; --help lists all keys"),
        ("inner", ["1"], "unknown key --inner"),
        (
            "inner.low",
            ["x"],
            "--inner.low is 'x', expected int; for example --inner.low=1",
        ),
        ("inner.low", [], "--inner.low is 'empty', expected int"),
        ("inner.low", ["1", "2"], "--inner.low is '1 2', expected int"),
        ("inner.name", ["a", "b"], "--inner.name is 'a b', expected str"),
        ("rates", ["1,x"], "expected tuple[float, ...]; for example --rates=0.1,0.2"),
        (
            "mode",
            ["xs"],
            "--mode is 'xs', expected one of os, ws; for example --mode=os",
        ),
        ("flip", ["maybe"], "--flip is 'maybe', expected True or False"),
        ("limit", ["1.5"], "--limit is '1.5', expected int | None"),
    ],
)
def test_what_does_not_fit_is_explained_in_one_line(key, texts, message, capfd):
    with pytest.raises(ValueError) as caught:
        override((Outer(),), {key: texts})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
