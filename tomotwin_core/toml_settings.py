"""Settings dataclasses and TOML files.

A settings dataclass has a default for every field. One whose fields are dataclasses is a file with a table for each;
a file names only what differs from the defaults. A field's explanation is the entry ``name : text`` of its class's
docstring; it is written above the field as a comment.

    plan = read_settings("train.toml", TrainingPlan())
    plan = with_values(plan, {"training": {"steps": 5000}}, "--steps")
    write_settings("train.toml", plan)

A field that is a mapping of names to values is a table too; a file that has it replaces it as a whole.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import textwrap
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path

Settings = TypeVar("Settings")
# Whole numbers that fit 53 bits.
_MOST = 2.0**53


def read_settings(path: Path | str, defaults: Settings) -> Settings:
    """`defaults` with what the file says instead; UserError for what is no TOML, an unknown name or a wrong type."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{file}: no such file; give settings in TOML, `--write-settings FILE.toml` writes all of them")
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise UserError(f"{file}: not settings (it nests too deep); correct it") from error
    except ValueError as error:  # no TOML, no UTF-8, or a number of more digits than Python reads
        raise UserError(f"{file}: not a TOML file ({error}); correct it") from error
    return with_values(defaults, table, str(file))


def with_values(settings: Settings, table: Mapping[str, Any], source: str) -> Settings:
    """A copy with the values of a (nested) table; `source` is named where they do not fit."""
    return _replaced(settings, table, source, ())


def with_assignments(settings: Settings, assignments: Sequence[str]) -> Settings:
    """A copy with values given as `table.name=value` (TOML values; a bare word is a text)."""
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.strip():
            raise UserError(
                f"--set {assignment}: give it as TABLE.NAME=VALUE, for example training.learning_rate=0.001"
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            value = text.strip()
        for part in reversed(name.strip().split(".")):
            value = {part: value}
        settings = with_values(settings, value, f"--set {assignment}")
    return settings


def write_settings(path: Path | str, settings: Any, heading: str = "") -> None:
    """All settings as TOML, each with its explanation; what is not set stands there as a comment."""
    lines = [f"# {line}" for line in heading.splitlines()] + [""] * bool(heading)
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines + _lines(settings, ())).strip() + "\n", encoding="utf-8")


def explanations(kind: type) -> dict[str, str]:
    """What a dataclass's docstring says of its fields, in entries ``name : text`` or ``name, name : text``."""
    names = "|".join(f.name for f in dataclasses.fields(kind))
    doc = inspect.getdoc(kind) or ""
    parts = re.split(rf"(?:^|(?<=\s))((?:{names})(?:, (?:{names}))*) : ", doc)
    found = {}
    for listed, text in zip(parts[1::2], parts[2::2], strict=True):
        for name in listed.split(", "):
            found[name] = " ".join(text.split()).rstrip(".")
    return found


def _replaced(settings: Any, table: Mapping[str, Any], source: str, above: tuple[str, ...]) -> Any:
    kinds = typing.get_type_hints(type(settings))
    known = {f.name for f in dataclasses.fields(settings)}
    values = {}
    for name, value in table.items():
        called = ".".join((*above, name))
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise UserError(f"{source}: {called} is not known; {hint}")
        old = getattr(settings, name)
        if dataclasses.is_dataclass(old):
            if not isinstance(value, Mapping):
                raise UserError(f"{source}: {called} is a table; write its settings below [{called}]")
            values[name] = _replaced(old, value, source, (*above, name))
        else:
            values[name] = _converted(value, kinds[name], f"{source}: {called}")
    return dataclasses.replace(settings, **values)


def _converted(value: Any, kind: Any, where: str) -> Any:
    """The value as the field's type wants it: whole numbers serve as numbers, lists become tuples."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _converted(value, next(k for k in inner if k is not type(None)), where)
    if origin is tuple and isinstance(value, list | tuple):
        many = len(inner) == 2 and inner[1] is Ellipsis
        if many or len(inner) == len(value):
            each = [inner[0]] * len(value) if many else inner
            return tuple(_converted(v, k, where) for v, k in zip(value, each, strict=True))
    elif origin is Mapping and isinstance(value, Mapping):
        return {name: _converted(v, inner[1], f"{where}.{name}") for name, v in value.items()}
    elif origin is typing.Literal and value in inner and type(value) in map(type, inner):
        return value
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool) and _is_bounded(value):
        return float(value)
    elif (kind is int and isinstance(value, int) and not isinstance(value, bool) and _is_bounded(value)) or (
        kind in (str, bool) and isinstance(value, kind)
    ):
        return value
    elif kind is Path and isinstance(value, str):
        return Path(value)
    raise UserError(f"{where} = {value!r}: give {_described(kind)}")


def _is_bounded(value: float) -> bool:
    """Whether a number is one (not nan or inf) and no larger than what computes exactly; absurd ones fill memory."""
    return abs(value) <= _MOST


def _described(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", str: 'a text in "quotes"', bool: "true or false", Path: "a path"}
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is tuple:
        many = len(inner) == 2 and inner[1] is Ellipsis
        return f"a list of {'any length' if many else len(inner)}, each {_described(inner[0])}"
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(_toml, inner))
    if typing.get_origin(kind) is Mapping:
        return f"a table of names with {_described(inner[1])} each"
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return _described(next(k for k in inner if k is not type(None)))
    return names.get(kind, str(kind))


def _lines(settings: Any, above: tuple[str, ...]) -> list[str]:
    lines: list[str] = []
    plain = [f for f in dataclasses.fields(settings) if not _is_table(getattr(settings, f.name))]
    if above:
        lines += ["", f"[{'.'.join(above)}]"]
    explained = explanations(type(settings))
    said = ""
    for field in plain:
        text = explained.get(field.name, "")
        lines += _comment(text) if text != said else []
        said = text
        value = getattr(settings, field.name)
        lines.append(f"# {field.name} =" if value is None else f"{field.name} = {_toml(value)}")
    for field in dataclasses.fields(settings):
        table = getattr(settings, field.name)
        if isinstance(table, Mapping):
            lines += ["", *_comment(explained.get(field.name, "")), f"[{'.'.join((*above, field.name))}]"]
            lines += [f"{_key(name)} = {_toml(value)}" for name, value in table.items()]
        elif field not in plain:
            lines += _lines(table, (*above, field.name))
    return lines


def _is_table(value: Any) -> bool:
    return dataclasses.is_dataclass(value) or isinstance(value, Mapping)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="# ", subsequent_indent="# ")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
