"""Progress of long work, readable on a terminal and in a log file.

On a terminal it is tqdm's bar. Anywhere else (Scipion's log, a cluster's output file) a bar that redraws itself becomes
thousands of unreadable characters, so a plain line is written every ten seconds instead:

    embedding: 37 of 120 tiles, 31 %, 2 min 10 s left

Both go to the standard error stream, so that what a command prints as its result stays clean.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 10.0


def progress(
    iterable: Iterable[Item],
    total: int | None = None,
    desc: str = "",
    unit: str = "",
    stream: TextIO | None = None,
    interval_s: float = SECONDS_BETWEEN_LINES,
) -> Iterator[Item]:
    """Yield the items of an iterable and show how far it is.

    Parameters
    ----------
    iterable : Iterable
        The work; its items are handed on unchanged.
    total : int, optional
        How many items there are; taken from ``len(iterable)`` where it has one.
    desc, unit : str
        What is done ("embedding") and what is counted ("tiles").
    stream : TextIO, optional
        Where to write, the standard error stream by default.
    interval_s : float
        Seconds between two plain lines. Work shorter than that writes nothing.
    """
    out = sys.stderr if stream is None else stream
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if out.isatty():
        from tqdm import tqdm

        yield from tqdm(iterable, total=total, desc=desc or None, unit=f" {unit}" if unit else "it", file=out)
    else:
        yield from _with_lines(iterable, total, desc, unit, out, interval_s)


def note(text: str, stream: TextIO | None = None) -> None:
    """A line about what goes on, above the bar where there is one."""
    out = sys.stderr if stream is None else stream
    if out.isatty():
        from tqdm import tqdm

        tqdm.write(text, file=out)
    else:
        print(text, file=out, flush=True)


def _with_lines(
    iterable: Iterable[Item], total: int | None, desc: str, unit: str, out: TextIO, interval_s: float
) -> Iterator[Item]:
    start = last = time.monotonic()
    done, wrote = 0, False
    prefix = f"{desc}: " if desc else ""
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= interval_s and done != total:
            left = f", {duration((total - done) * (now - start) / done)} left" if total else ""
            print(f"{prefix}{_count(done, total, unit)}{left}", file=out, flush=True)
            last, wrote = now, True
    elapsed = time.monotonic() - start
    if wrote or elapsed >= interval_s:
        print(f"{prefix}{_count(done, total, unit)}, took {duration(elapsed)}", file=out, flush=True)


def _count(done: int, total: int | None, unit: str) -> str:
    named = f" {unit}" if unit else ""
    return f"{done} of {total}{named}, {100 * done // total} %" if total else f"{done}{named}"


def duration(seconds: float) -> str:
    """Seconds in words a person reads at a glance: ``48 s``, ``2 min 10 s``, ``3 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
