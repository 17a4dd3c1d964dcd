"""Whatever stands in a file, it is read right or refused in a sentence: no traceback, no hang, no memory gone.

A few inputs of every reader as a part of all tests; thousands with `pytest tests/robustness --inputs 200 --seed 7`.
What falls short is kept beside the test's other files, to be looked at: its path is in the message.
"""

from __future__ import annotations

import resource
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from good_files import READERS, Reader
from mutations import folder_mutated

from tomotwin_core.errors import UserError

_HANGS_S, _MORE_MEMORY = 20, 2 << 30


class Hangs(BaseException):
    """An input that is still being read after so long."""


@contextmanager
def bounded() -> Iterator[None]:
    """No more than some seconds and some memory beyond what is in use."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Hangs

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits, before = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, late)
    signal.alarm(_HANGS_S)
    resource.setrlimit(resource.RLIMIT_AS, (used + _MORE_MEMORY, limits[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("reader", READERS, ids=lambda r: r.name)
def test_good_files_are_read(good: Path, reader: Reader) -> None:
    reader.read(good / reader.name)


@pytest.mark.parametrize("reader", READERS, ids=lambda r: r.name)
def test_bad_files_are_a_sentence_or_read_right(
    good: Path, tmp_path: Path, reader: Reader, pytestconfig: pytest.Config
) -> None:
    failed = []
    for number in range(pytestconfig.getoption("--inputs")):
        rng = np.random.default_rng([pytestconfig.getoption("--seed"), number, *reader.name.encode()])
        path = tmp_path / str(number) / reader.name
        path.parent.mkdir()
        if (good / reader.name).is_dir():
            shutil.copytree(good / reader.name, path)
            folder_mutated(path, rng, reader.mutate)
        else:
            path.write_bytes(reader.mutate((good / reader.name).read_bytes(), rng))
        problem = fault(reader, path)
        if problem:
            failed.append(f"{path}: {problem}")
        else:
            shutil.rmtree(path.parent)
    assert not failed, "\n".join(failed)


def fault(reader: Reader, path: Path) -> str:
    """What is wrong with how a reader takes an input; "" where nothing is."""
    began = time.monotonic()
    try:
        with bounded(), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            reader.read(path)
    except (UserError, *reader.errors) as error:
        sentence = str(error)
        if "\n" in sentence.strip() or not sentence.strip():
            return f"not one line: {sentence!r}"
        sentence.encode("utf-8", "backslashreplace")
    except (Exception, Hangs) as error:
        return f"{type(error).__name__} after {time.monotonic() - began:.1f} s: {str(error)[:300]}"
    return ""
