"""A command that is killed at any moment leaves nothing half, no process and no lock; run again it gives what it would have given.

A few kills as a part of all tests; many with `pytest tests/robustness --kills 10 --seed 7`.
"""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from commands import call, started, state_of, still_running, unfinished

FEW = [
    ("embed", signal.SIGKILL), ("embed", signal.SIGTERM), ("embed", signal.SIGINT), ("cluster", signal.SIGKILL), ("locate", signal.SIGTERM),
    ("simulate", signal.SIGKILL), ("train", signal.SIGKILL),
]  # fmt: skip
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ALL = [(command, s) for command in ("embed", "locate", "cluster", "convert", "simulate", "train") for s in _SIGNALS]
# Of workers, until they have seen that nobody wants their work.
_AFTER_S = 6.0


@pytest.fixture(scope="session")
def uninterrupted(good: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, dict[str, str]]]:
    """Seconds and results of each command that is left alone, found when first asked for."""
    folder, known = tmp_path_factory.mktemp("whole"), {}

    class Found(dict[str, tuple[float, dict[str, str]]]):
        def __missing__(self, command: str) -> tuple[float, dict[str, str]]:
            began = time.monotonic()
            _run(call(command, good, folder / command))
            self[command] = time.monotonic() - began, state_of(folder / command)
            return self[command]

    return Found(known)


@pytest.mark.parametrize(("command", "number"), ALL, ids=lambda v: v if isinstance(v, str) else v.name)
def test_a_killed_command_run_again_gives_what_it_would_have_given(
    good: Path,
    tmp_path: Path,
    uninterrupted: dict[str, tuple[float, dict[str, str]]],
    command: str,
    number: signal.Signals,
    pytestconfig: pytest.Config,
) -> None:
    kills = pytestconfig.getoption("--kills")
    if kills == 1 and (command, number) not in FEW:
        pytest.skip("one of many: --kills 2 tries it too")
    seconds, expected = uninterrupted[command]
    rng = np.random.default_rng([pytestconfig.getoption("--seed"), *command.encode(), number])
    for kill in range(kills):
        out = tmp_path / str(kill)
        process = started(call(command, good, out))
        time.sleep(float(rng.uniform(0.25, 1.0)) * seconds)
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]
        assert "Traceback" not in said, said
        if number != signal.SIGKILL and out.is_dir():
            assert not unfinished(out), "what is ended in peace cleans up at once"
        _wait_for_none(process.pid)
        _run(call(command, good, out))
        assert state_of(out) == expected, f"kill {kill} of {command} by {number.name}"
        assert not unfinished(out)
        shutil.rmtree(out)


def _wait_for_none(session: int) -> None:
    until = time.monotonic() + _AFTER_S
    while (left := still_running(session)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left, f"processes {left} outlive their parent"


def _run(words: list[str]) -> None:
    process = started(words)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
