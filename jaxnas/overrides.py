"""Typed settings of frozen dataclasses from text: `--data.path=FOLDER`.

A key is the dotted path of a field through nested dataclasses; dashes and underscores
are the same. Text becomes a value by the field's annotation, and the dataclasses are
rebuilt from the inside out, so that their own checks see the final values together.
"""

import contextlib
import dataclasses
import difflib
import io
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple

import tyro


class Leaf(NamedTuple):
    """A setting that holds no dataclass: its annotation and its value so far."""

    annotation: Any
    value: Any


def leaves(config, prefix: str = "") -> dict[str, Leaf]:
    """All settings of a dataclass instance by dotted key."""
    annotations = typing.get_type_hints(type(config))
    found = {}
    for field in dataclasses.fields(config):
        key, value = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= leaves(value, f"{key}.")
        else:
            found[key] = Leaf(annotations[field.name], value)
    return found


def split_arguments(
    arguments: list[str], flags: Iterable[str] = ()
) -> tuple[list[str], dict[str, list[str]]]:
    """What stands alone, and the texts given to each key, in order.

    A key takes the text after its `=`, or else all texts up to the next key. Keys in
    `flags` take none but the one after `=`. Of a repeated key the last one counts.
    """
    alone, settings = [], {}
    open_values = alone
    for argument in arguments:
        if not argument.startswith("--"):
            open_values.append(argument)
            continue
        key, equals, text = argument[2:].partition("=")
        key = key.replace("-", "_")
        settings[key] = [text] if equals else []
        open_values = alone if equals or key in flags else settings[key]
    return alone, settings


def override(configs: tuple, settings: dict[str, list[str]]) -> tuple:
    """The same dataclasses with the texts of `settings` in place of their values.

    The keys of all of `configs` form one space.

    Raises:
      ValueError: a key is unknown, a text does not fit the annotation, or a dataclass
        refuses the new values.
    """
    known: dict[str, Leaf] = {}
    for config in configs:
        known |= leaves(config)
    values = {key: _value(key, settings[key], known) for key in settings}
    return tuple(_rebuilt(config, values) for config in configs)


def _rebuilt(config, values: dict[str, Any], prefix: str = ""):
    changes = {}
    for field in dataclasses.fields(config):
        key, old = f"{prefix}{field.name}", getattr(config, field.name)
        if dataclasses.is_dataclass(old):
            new = _rebuilt(old, values, f"{key}.")
        else:
            new = values.get(key, old)
        if new is not old:
            changes[field.name] = new
    return dataclasses.replace(config, **changes) if changes else config


def _value(key: str, texts: list[str], known: dict[str, Leaf]):
    if key not in known:
        raise ValueError(
            f"unknown key --{key}{suggestion(key, known, '--')}; --help lists all keys"
        )
    annotation, value = known[key]
    words = _words(annotation, texts)
    if annotation is str and len(words) == 1:
        return words[0]
    try:
        # The parser explains itself in a box of many lines.
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(annotation, args=words, console_outputs=False)
    except SystemExit as error:
        raise ValueError(
            f"--{key} is {' '.join(texts) or 'empty'!r}, expected "
            f"{_type_text(annotation)}; for example --{key}={_text(value)}"
        ) from error


def _words(annotation, texts: list[str]) -> list[str]:
    """The texts as the parser of the annotation wants them, one value each."""
    if annotation is bool:
        return [text.capitalize() for text in texts] or ["True"]
    if typing.get_origin(annotation) in (tuple, list):
        return [word for text in texts for word in text.split(",") if word]
    return texts


def _type_text(annotation) -> str:
    if typing.get_origin(annotation) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(annotation)))}"
    if annotation is bool:
        return "True or False"
    plain = isinstance(annotation, type) and not typing.get_origin(annotation)
    return annotation.__name__ if plain else str(annotation)


def _text(value) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value)


def suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`, did you mean ...?` with the closest known name, or nothing.

    A name without its section is also close: `steps` to `training.steps`.
    """
    known = list(known)
    last = {key.rpartition(".")[2]: key for key in known}
    close = difflib.get_close_matches(name, [*known, *last], n=1, cutoff=0.5)
    if not close:
        close = difflib.get_close_matches(name.rpartition(".")[2], last, n=1)
    if not close:
        return ""
    best = close[0] if close[0] in known else last[close[0]]
    return f", did you mean {prefix}{best}?"


def print_help(command: str, description: str, configs: dict[str, Any]) -> None:
    """Explains every setting of the dataclasses: annotation, docstring and default."""
    description += " A key for True or False, given alone, means True."
    marked = (tyro.conf.FlagConversionOff, tyro.conf.arg(name=""))
    fields = [
        (name, Annotated[(type(config), *marked)], dataclasses.field(default=config))
        for name, config in configs.items()
    ]
    shown = dataclasses.make_dataclass("Settings", fields, frozen=True, kw_only=True)
    with contextlib.suppress(SystemExit):
        tyro.cli(shown, args=["--help"], prog=command, description=description)
