"""Tests with real neighbours: Scipion's plugins of other programs, RELION, SLURM. What is missing is said, and skipped.

Each test runs a script of this folder in a process and a Scipion of its own, since neighbours and queues are chosen when
Scipion starts, and the other tests are to see none of them. The neighbours' plugins lie in a folder that only these
scripts look into; `make venv` fills it (tests/integration/neighbours.txt).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
NEIGHBOURS = Path(sys.prefix) / "neighbours"
BIN = Path(sys.executable).parent
TOMOTWIN = BIN / "tomotwin"

Run = Callable[..., Any]


def require_neighbours() -> None:
    """Skip where the plugins are not installed."""
    if not (NEIGHBOURS / "reliontomo").is_dir():
        pytest.skip(
            f"the plugins of tests/integration/neighbours.txt are not in {NEIGHBOURS} (make venv installs them)"
        )


def require_relion() -> None:
    """Skip where RELION 3 is not installed."""
    if shutil.which("relion_reconstruct") is None:
        pytest.skip("there is no relion_reconstruct: nothing is averaged (apt-get install relion)")


def require_engine() -> None:
    """Skip where the plugin alone is installed."""
    if not TOMOTWIN.exists():
        pytest.skip("the engine is not installed here")


def tomotwin(*words: object) -> None:
    """A command of the engine."""
    done = subprocess.run([str(TOMOTWIN), *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def in_scipion(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a script of this folder with arguments in a Scipion of its own; gives back the JSON that it wrote."""
    number = 0

    def run(
        script: str,
        *arguments: object,
        neighbours: bool = False,
        hosts: str | None = None,
        more: dict[str, str] | None = None,
    ) -> Any:
        nonlocal number
        number += 1
        home = tmp_path_factory.mktemp(f"scipion{number}")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("SCIPION", "TOMOTWIN"))
        }
        environment.update(
            SCIPION_HOME=str(home),
            SCIPION_USER_DATA=str(home / "data"),
            SCIPION_TESTS=str(home / "tests"),
            SCIPION_DOMAIN="pwem",
            SCIPION_PYTHON=sys.executable,
            SCIPION_TEST_NOSYNC="True",
            SCIPION_NOTIFY="False",
            SCIPION_STEPS_CHECK_SEC="1",
            VIRTUAL_ENV=sys.prefix,
            TOMOTWIN_BIN=str(TOMOTWIN),
            OMP_NUM_THREADS="1",
            PYTHONPATH=os.pathsep.join([str(HERE), *([str(NEIGHBOURS)] if neighbours else [])]),
            **relion_for_scipion(home),
        )
        environment.update(more or {})
        environment["PATH"] = os.pathsep.join([str(BIN), environment["PATH"]])
        environment.pop("DISPLAY", None)
        config = [sys.executable, "-m", "scipion", "config", "--unattended", "--notify"]
        subprocess.run(config, check=True, stdout=subprocess.DEVNULL, env=environment, cwd=home)
        if hosts is not None:
            (home / "config" / "hosts.conf").write_text(hosts)
        answer = home / "answer.json"
        command = [sys.executable, str(HERE / script), str(answer), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home)
        assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return json.loads(answer.read_text())

    return run


def relion_for_scipion(home: Path) -> dict[str, str]:
    """Where the plugins find Debian's RELION: they want a folder named after a version they know, with a folder bin."""
    relion = shutil.which("relion_reconstruct")
    if relion is None:
        return {}
    folder = home / "relion-4.0"
    folder.mkdir()
    (folder / "bin").symlink_to(Path(relion).parent)
    return {"RELION_HOME": str(folder), "RELIONTOMO_HOME": str(folder), "RELION_ENV_ACTIVATION": "true"}
