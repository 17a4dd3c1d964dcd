"""What all readers share: a text that is one, and numbers that are some."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from tomotwin_core.errors import UserError

# The largest of these files, Warp's, holds spectra of some hundred images.
_MOST_BYTES = 200_000_000


def text_of(path: Path, what: str) -> str:
    """A file as text; a `UserError` for none, for an absurdly large one and for one that is no text.

    what : the file should be, with its article.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise UserError(f"{path}: not {what} ({size / 1e6:.0f} MB); give another file")
        content = path.read_bytes()
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not {what}; give a file in it") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give another one") from None
    if b"\0" in content:
        raise UserError(f"{path}: not {what} (it is no text); give another file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # as of Windows, in comments


def number(word: str, path: Path, what: str) -> float:
    """A finite number; a `UserError` that says what it should be."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}: {what} is {word[:40]!a}, which is no number; correct the file")
    return value


def rows_of(path: Path, text: str, comments: str = "#") -> list[list[str]]:
    """Words of each line that is no comment and not empty; a `UserError` for a file without any."""
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith(comments)]
    if not rows:
        raise UserError(f"{path}: has no line with a value; give another file")
    return rows


def column(path: Path, rows: Iterable[Sequence[str]], index: int, what: str) -> tuple[float, ...]:
    """One column of numbers; a `UserError` for a row that is too short."""
    values = []
    for row in rows:
        if index >= len(row):
            raise UserError(f"{path}: a line has {len(row)} values and lacks {what}; is the file complete?")
        values.append(number(row[index], path, what))
    return tuple(values)
