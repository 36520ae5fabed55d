"""A recipe: what to pretrain on and how, read from a TOML file that is checked key by key."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from llamacast.forecast import DataError
from llamacast.model.config import ARCHITECTURES, NetworkConfig
from llamacast.training.config import PretrainConfig


@dataclass(frozen=True)
class Note:
    """What is known of a data set, carried along with what learns from it."""

    licence: str = ""
    leakage: str = ""
    """Where its series, or ones like them, are tested on."""


@dataclass(frozen=True)
class Recipe:
    """The keys of the file: those of `PretrainConfig`, each a table of its own, and these."""

    data: Path | None = None
    """Folder or file of series, from where the recipe lies."""
    without: tuple[str, ...] = ()
    """Data sets to leave out."""
    left_out_days: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By name of data set, days of each year that its source leaves out (see `read_corpus`)."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    notes: Mapping[str, Note] = field(default_factory=dict)
    """By name of data set."""
    training: PretrainConfig = field(default_factory=PretrainConfig)

    def lengthened(self, steps: int | None) -> Recipe:
        """The recipe with another number of steps, if one is given."""
        if steps is None:
            return self
        loop = dataclasses.replace(self.training.loop, steps=steps)
        return dataclasses.replace(self, training=dataclasses.replace(self.training, loop=loop))

    @property
    def licences(self) -> dict[str, str]:
        return {name: note.licence for name, note in self.notes.items() if note.licence}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        DataError: names the key that is not known, or whose value is of the wrong kind or range.
    """
    try:
        keys = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a recipe in TOML ({error})") from error
    training = {field.name for field in dataclasses.fields(PretrainConfig)}
    nested = {
        **{name: value for name, value in keys.items() if name not in training},
        "training": {name: value for name, value in keys.items() if name in training},
    }
    if "training" in keys:
        raise DataError(f"{path}: there is no key 'training'; its members stand at the top")
    try:
        recipe = _build(Recipe, nested, "")
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: {error}") from error
    assert isinstance(recipe, Recipe)
    data = recipe.data and path.parent / recipe.data
    return dataclasses.replace(recipe, data=data)


def _build(kind: Any, keys: Any, place: str) -> Any:
    """A dataclass from a table, member by member."""
    if not isinstance(keys, dict):
        raise ValueError(f"{place or 'the recipe'} must be a table")
    hints = get_type_hints(kind)
    for name in keys:
        if name not in hints:
            known = ", ".join(name for name in hints if name != "training")
            raise ValueError(f"there is no key {_under(place, name)!r}; there are {known}")
    values = {name: _read(hints[name], value, _under(place, name)) for name, value in keys.items()}
    try:
        return kind(**values)
    except ValueError as error:
        told = place and place != "training"
        raise ValueError(f"[{place}] {error}" if told else str(error)) from error


def _under(place: str, name: str) -> str:
    return f"{place}.{name}" if place and place != "training" else name


def _read(kind: Any, value: Any, place: str) -> Any:
    """A value of the type that a field declares."""
    origin, inner = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, place)
    if kind == NetworkConfig:
        return _read_network(value, place)
    if origin in (Union, types.UnionType):
        return _read(inner[0], value, place)
    if origin is Literal:
        return _checked(value in inner, value, f"one of {', '.join(map(repr, inner))}", place)
    if origin is tuple:
        members = _checked(isinstance(value, list), value, "a list", place)
        return tuple(_read(inner[0], member, place) for member in members)
    if origin is not None and issubclass(origin, Mapping):
        table = _checked(isinstance(value, dict), value, "a table", place)
        return {name: _read(inner[1], one, _under(place, name)) for name, one in table.items()}
    if kind is Path:
        return Path(_checked(isinstance(value, str), value, "a path", place))
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return float(_checked(number and math.isfinite(value), value, "a number", place))
    return _checked(type(value) is kind, value, f"of type {kind.__name__}", place)


def _read_network(value: Any, place: str) -> Any:
    """A table whose key `architecture` tells its other keys; Lag-Llama's where it is not there."""
    table = dict(_checked(isinstance(value, dict), value, "a table", place))
    name = table.pop("architecture", "lag-llama")
    known = ", ".join(map(repr, ARCHITECTURES))
    there = isinstance(name, str) and name in ARCHITECTURES
    _checked(there, name, f"one of {known}", _under(place, "architecture"))
    return _build(ARCHITECTURES[name], table, place)


def _checked(fits: bool, value: Any, wanted: str, place: str) -> Any:
    if not fits:
        raise ValueError(f"{place} must be {wanted}; got {value!r}")
    return value
