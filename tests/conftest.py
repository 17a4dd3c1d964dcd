"""What tests of several rooms need: a screen for those that open windows."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("robustness", "how much tests/robustness tries (few by default: all tests take minutes)")
    group.addoption("--inputs", type=int, default=12, help="bad files for each reader (default: 12)")
    group.addoption("--kills", type=int, default=1, help="kills of each command by each signal (default: 1)")
    group.addoption("--seed", type=int, default=1, help="of the bad files and the moments of kills (default: 1)")


@pytest.fixture(scope="session")
def screen() -> Iterator[str]:
    """A virtual screen (Xvfb) as the display of this process; without Tk or Xvfb the test is skipped, and says so."""
    try:
        import tkinter  # noqa: F401
    except ImportError:
        pytest.skip("this Python has no Tk: the window is not tested (apt-get install python3-tk)")
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no Xvfb: the window is not tested (apt-get install xvfb)")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1400x900x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            display = ":" + pipe.readline().strip()
        before = os.environ.get("DISPLAY")
        os.environ["DISPLAY"] = display
        yield display
        os.environ.pop("DISPLAY")
        if before is not None:
            os.environ["DISPLAY"] = before
    finally:
        server.terminate()
        server.wait()
