"""What is looked at in all options of all commands before any of them runs."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tomotwin_core.errors import UserError

# Of numbers that count or seed: generators take 32 bits.
_MOST = 2**32 - 1


def require_sense(options: argparse.Namespace) -> None:
    """UserError for numbers that are none (nan, inf) or absurd, and for paths that no file can have."""
    for name, given in vars(options).items():
        for value in _flat(given):
            called = f"--{name.replace('_', '-')}"
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{called} {value:g}: give a number")
            if isinstance(value, int) and abs(value) > _MOST:
                raise UserError(f"{called} {value}: is too large, {_MOST} at most")
            if isinstance(value, str | Path) and "\0" in str(value):
                raise UserError(f"{called} {str(value)!a}: no file can be called so")


def _flat(given: Any) -> Iterator[Any]:
    if isinstance(given, list | tuple):
        for one in given:
            yield from _flat(one)
    else:
        yield given
