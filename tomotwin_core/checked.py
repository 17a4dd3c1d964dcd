"""What stands in files that others may have written, believed only as far as a schema says: JSON, attributes, headers.

    class Card(Schema):
        widths: tuple[Channels, Channels]

    card = checked(Card, read_json(path, "a card"), path, "a card", "make one with `tomotwin train`")

Whatever is missing, of another kind or out of bounds is a `UserError` of one sentence that says where.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tomotwin_core.errors import UserError
from tomotwin_core.names import ascii_path, fault_of

# JSON in memory takes some ten times its size; what this software writes as JSON has a tenth of this.
_MOST_JSON_BYTES = 500_000_000


class Schema(BaseModel):
    """A part of a file. What it does not know is passed over, so that later versions may say more."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)


def _list_as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _number(value: Any) -> Any:
    """Whole numbers serve as numbers, true and false do not."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e300 else value


def _name(value: Any) -> Any:
    fault = fault_of(value)
    if fault:
        raise ValueError(fault)
    return value


def _number_or_nan(value: Any) -> Any:
    if not isinstance(value, float | int) or isinstance(value, bool) or math.isinf(value):
        raise ValueError("should be a number")
    return float(value)


Number = Annotated[float, BeforeValidator(_number)]
NumberOrNaN = Annotated[float, Field(allow_inf_nan=True), BeforeValidator(_number_or_nan)]
"""Not a number where nothing is known."""
Name = Annotated[str, BeforeValidator(_name)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
VoxelSize = Annotated[float, BeforeValidator(_number), Field(gt=0.01, lt=1000)]
Diameter = Annotated[float, BeforeValidator(_number), Field(gt=0, lt=100_000)]
Side = Annotated[int, Field(gt=0, lt=1_000_000)]
Shape3 = Annotated[tuple[Side, Side, Side], BeforeValidator(_list_as_tuple)]
Tuple = BeforeValidator(_list_as_tuple)
"""To annotate tuples with: JSON has lists."""

Kind = TypeVar("Kind", bound=Schema)


def read_json(path: Path, what: str, hint: str = "give another file") -> Any:
    """A JSON file as Python has it; a `UserError` for what is none, is no UTF-8, nests too deep or is absurdly large."""
    try:
        size = path.stat().st_size
        if size > _MOST_JSON_BYTES:
            raise UserError(f"{ascii_path(path)}: not {what} ({size / 1e6:.0f} MB of JSON); {hint}")
        return parsed_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{ascii_path(path)}: no such file; {hint}") from error
    except ValueError as error:
        raise UserError(f"{ascii_path(path)}: not {what} ({error}); {hint}") from error


def parsed_json(text: str) -> Any:
    """JSON; ValueError for what is none, also for what nests too deep."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it nests too deep") from error


def checked(schema: type[Kind], content: Any, path: object, what: str, hint: str = "give another file") -> Kind:
    """The content as its schema has it; a `UserError` that says what does not fit."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{ascii_path(path)}: not {what} ({said(error)}); {hint}") from error


def said(error: ValidationError) -> str:
    """The first fault in words."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[:1].lower()}{message[1:]}"[:200] if where else message[:200]
