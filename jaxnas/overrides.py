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


def leaves(config) -> dict[str, Leaf]:
    """All settings of a dataclass instance by dotted key.

    The dataclasses of a tuple are counted from 0: `stages.0.blocks`.
    """
    found = {}
    for name, annotation, value in _children(config):
        if _has_children(value):
            found |= {f"{name}.{key}": leaf for key, leaf in leaves(value).items()}
        else:
            found[name] = Leaf(annotation, value)
    return found


def _has_children(value) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(map(dataclasses.is_dataclass, value))
    return dataclasses.is_dataclass(value)


def _children(node) -> list[tuple[str, Any, Any]]:
    """Name, annotation and value of each part of a dataclass or tuple of them."""
    if isinstance(node, tuple):
        return [(str(i), type(value), value) for i, value in enumerate(node)]
    annotations = typing.get_type_hints(type(node))
    names = [field.name for field in dataclasses.fields(node)]
    values = {name: getattr(node, name) for name in names}
    return [
        (name, _plain(annotations[name], values[name]), values[name]) for name in names
    ]


def _plain(annotation, value):
    """What text can give: a field that may hold arrays takes a number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return int | float if annotation is Any and number else annotation


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


def _rebuilt(node, values: dict[str, Any], prefix: str = ""):
    changes = {}
    for name, _, old in _children(node):
        key = f"{prefix}{name}"
        if _has_children(old):
            new = _rebuilt(old, values, f"{key}.")
        else:
            new = values.get(key, old)
        if new is not old:
            changes[name] = new
    if not changes:
        return node
    if isinstance(node, tuple):
        return tuple(changes.get(str(i), old) for i, old in enumerate(node))
    return dataclasses.replace(node, **changes)


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

    Close is a name of the same section, then a whole name, then, if the section is
    unknown or not given, a name in another one. Else the section's names are listed.
    """
    known = list(known)
    section, _, last = name.rpartition(".")
    siblings = {
        key.rpartition(".")[2]: key
        for key in known
        if key.rpartition(".")[0] == section
    }
    anywhere = {key.rpartition(".")[2]: key for key in known}
    whole = {key: key for key in known}
    searches = [(last, siblings, 0.6), (name, whole, 0.8)]
    if not section or not siblings:
        searches.append((last, anywhere, 0.6))
    for text, candidates, cutoff in searches:
        if close := difflib.get_close_matches(text, candidates, n=1, cutoff=cutoff):
            return f", did you mean {prefix}{candidates[close[0]]}?"
    if section and siblings:
        names = ", ".join(prefix + key for key in siblings.values())
        return f", did you mean one of {names}?"
    return ""


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
