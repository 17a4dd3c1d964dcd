"""What the scripts of this folder share: a project, launching, wiring, and the answer to the test that called."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pyworkflow

ANSWER = Path(sys.argv[1])
# Plugins get their variables when Scipion loads them, and are of no use before.
pyworkflow.Config.getDomain().getPlugins()


def new_project(name: str = "integration") -> Any:
    """An empty Scipion project, current folder from now on."""
    from pyworkflow.project import Manager

    project = Manager().createProject(name)
    os.chdir(project.path)
    return project


def launch(project: Any, protocol: Any, expect: str = "finished") -> Any:
    """Run a protocol as the window would, and give back its final state."""
    errors = protocol.validate()
    assert errors == [], errors
    project.launchProtocol(protocol, wait=True, force=True)
    return state(project, protocol, expect)


def state(project: Any, protocol: Any, expect: str = "finished") -> Any:
    """A protocol as its own files have it."""
    protocol = project.getProtocol(protocol.getObjId(), fromRuns=False)
    project._updateProtocol(protocol)
    log = Path(protocol.getStdoutLog())
    text = log.read_text()[-3000:] if log.exists() else "no log"
    errors = Path(protocol.getStderrLog())
    text += errors.read_text()[-2000:] if errors.exists() else ""
    assert protocol.getStatus() == expect, f"{protocol.getErrorMessage()}\n{text}"
    return protocol


def point(parameter: Any, protocol: Any, output: str) -> None:
    """Connect an input of a protocol with an output of another, as drawing the line in the window does."""
    parameter.set(protocol)
    parameter.setExtended(output)


def answer(values: Any) -> None:
    """Hand JSON back to the test."""
    ANSWER.write_text(json.dumps(values))
