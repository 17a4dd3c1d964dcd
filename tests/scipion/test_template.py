"""The project template, run by Scipion's own command as a facility does: no screen, one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import HOME, VOXEL_SIZE_A, planted_tomogram, write_mrc

import tomotwin_scipion

TEMPLATE = Path(tomotwin_scipion.__file__).parent / "templates" / "tomotwin_reference_picking.json.template"


def test_scipion_template_makes_the_whole_workflow_without_a_screen_and_it_runs(tmp_path: Path) -> None:
    from pyworkflow.project import Manager

    for folder in ("tomograms", "maps"):
        (tmp_path / folder).mkdir()
    write_mrc(tmp_path / "tomograms" / "ts_1.mrc", planted_tomogram({(5, 7, 11): 2}), VOXEL_SIZE_A)
    for name in ("one.mrc", "two.mrc"):
        write_mrc(tmp_path / "maps" / name, np.ones((8, 8, 8)), 5.0)
    aliases = {
        "tomograms": tmp_path / "tomograms",
        "tomograms_pattern": "*.mrc",
        "tomograms_voxel_size": VOXEL_SIZE_A,
        "maps": tmp_path / "maps",
        "maps_pattern": "*.mrc",
        "maps_voxel_size": 5.0,
        "contrast": 0,
        "project_name": "from_template",
    }
    command = [sys.executable, "-m", "scipion", "template", str(TEMPLATE), "--nogui", "--noschedule"]
    command += [f"{alias}={value}" for alias, value in aliases.items()]
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=HOME, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr

    folder = os.getcwd()
    try:
        project = Manager().loadProject("from_template")
        for number in range(len(project.getRuns())):  # in their order; Scipion's scheduler waits 20 s before each
            run = project.getRuns(refresh=True)[number]
            project.launchProtocol(run, wait=True, force=True)
            project._updateProtocol(run)
            assert run.isFinished(), f"{run.getClassName()}: {run.getErrorMessage()}"
        (coordinate,) = list(run.output3DCoordinates.iterCoordinates())
        assert (coordinate.getTomoId(), coordinate.getGroupId()) == ("ts_1", 2)
    finally:
        os.chdir(folder)
