"""A Scipion of its own for the tests: home, user data and configuration in a temporary folder, no screen.

Scipion reads its environment when it is imported, so this is set here, before any test module is.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

HERE = Path(__file__).parent
HOME = Path(tempfile.mkdtemp(prefix="scipion_tests_"))
FAKE_LOG = HOME / "calls.jsonl"
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

os.environ.update(
    SCIPION_HOME=str(HOME),
    SCIPION_USER_DATA=str(HOME / "data"),
    SCIPION_TESTS=str(HOME / "tests"),
    SCIPION_DOMAIN="pwem",
    SCIPION_PYTHON=sys.executable,
    SCIPION_TEST_NOSYNC="True",
    SCIPION_NOTIFY="False",
    SCIPION_STEPS_CHECK_SEC="1",
    VIRTUAL_ENV=sys.prefix,
    PATH=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]),
    TOMOTWIN_BIN=str(HERE / "fake_tomotwin.py"),
    FAKE_TOMOTWIN_LOG=str(FAKE_LOG),
    OMP_NUM_THREADS="1",
)
os.chdir(HOME)
subprocess.run(
    [sys.executable, "-m", "scipion", "config", "--unattended", "--notify"], check=True, stdout=subprocess.DEVNULL
)

TOMOTWIN = os.path.join(os.path.dirname(sys.executable), "tomotwin")
VOXEL_SIZE_A = 8.0
SHAPE = (30, 50, 70)  # z, y, x: all different, so that a swap of axes shows


def write_mrc(path: Path, volume: np.ndarray, voxel_size: float) -> None:
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(volume.astype(np.float32))
        file.voxel_size = voxel_size


def planted_tomogram(particles: dict[tuple[int, int, int], int]) -> np.ndarray:
    """A tomogram of zeros whose voxel (x, y, z) is -k for a particle of the k-th reference."""
    volume = np.zeros(SHAPE)
    for (x, y, z), kind in particles.items():
        volume[z, y, x] = -kind
    return volume


def point(parameter: Any, protocol: Any, output: str) -> None:
    """Connect an input of a protocol with an output of another, as drawing the line in the window does."""
    parameter.set(protocol)
    parameter.setExtended(output)


@pytest.fixture(scope="session")
def project() -> Any:
    """An empty Scipion project, current folder for the rest of the session."""
    from pyworkflow.project import Manager

    project = Manager().createProject("tests")
    os.chdir(project.path)
    return project


@pytest.fixture(scope="session")
def launch(project: Any) -> Callable[..., Any]:
    """Run a protocol in the project as the window would, and give back its final state."""

    def launch(protocol: Any, expect: str = "finished") -> Any:
        errors = protocol.validate()
        assert errors == []
        project.launchProtocol(protocol, wait=True, force=True)
        protocol = project.getProtocol(protocol.getObjId(), fromRuns=False)
        project._updateProtocol(protocol)
        log = Path(protocol.getStdoutLog())
        text = log.read_text()[-3000:] if log.exists() else "no log"
        assert protocol.getStatus() == expect, f"{protocol.getErrorMessage()}\n{text}"
        return protocol

    return launch


@pytest.fixture(scope="module")
def real_engine() -> Iterator[None]:
    """Protocols launched in the module call the real command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOMOTWIN_BIN", TOMOTWIN)
        yield


@pytest.fixture
def calls() -> Callable[[], list[list[str]]]:
    """Command lines that the stand-in for the engine got since the test began."""
    FAKE_LOG.touch()
    before = len(FAKE_LOG.read_text().splitlines())
    return lambda: [json.loads(line) for line in FAKE_LOG.read_text().splitlines()[before:]]
