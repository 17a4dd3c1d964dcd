"""The project templates, run by Scipion's own command as a facility does: no screen, one line each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HOME, TOMOTWIN, VOXEL_SIZE_A, planted_tomogram, write_mrc

import tomotwin_scipion

TEMPLATES = Path(tomotwin_scipion.__file__).parent / "templates"
ONES = [("ts_2", 1)] * 3
STRUCTURE = "ATOM      1  CA  ALA A   1      {x:6.3f}  13.200   2.100  1.00 20.00           C\nEND\n"


def fields(name: str) -> set[str]:
    """What a template asks for: without a screen all of it must be given."""
    return set(re.findall(r"\|(\w+)~", (TEMPLATES / f"{name}.json.template").read_text()))


def test_the_manual_gives_and_lists_all_fields_of_the_templates() -> None:
    root = TEMPLATES.parents[1]
    for page in ("README.md", "docs/facilities.md"):
        text = (root / page).read_text()
        ((name, words),) = re.findall(
            r"scipion template \S*?(\w+)\.json\.template --nogui((?:.|\n)*?)\n\s*(?:```|\n)", text
        )
        assert set(re.findall(r"(\w+)=", words)) == fields(name) | {"project_name"}, page
    rows = re.findall(r"^\| `(tomotwin_\w+)` \|.*\|(.*)\|$", text, flags=re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", listed)) for name, listed in rows} == {
        path.name.split(".")[0]: fields(path.name.split(".")[0]) for path in TEMPLATES.glob("*.template")
    }


def made_and_run(name: str, project_name: str, **aliases: object) -> Any:
    """Make a project of a template, run its protocols one after the other, and give back the last."""
    from pyworkflow.project import Manager

    command = [sys.executable, "-m", "scipion", "template", str(TEMPLATES / f"{name}.json.template")]
    command += ["--nogui", "--noschedule", f"project_name={project_name}"]
    command += [f"{alias}={value}" for alias, value in aliases.items()]
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=HOME, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = os.getcwd()
    try:
        project = Manager().loadProject(project_name)
        for number in range(len(project.getRuns())):  # in their order; Scipion's scheduler waits 20 s before each
            run = project.getRuns(refresh=True)[number]
            run.numberOfThreads.set(1)  # with more, Scipion looks for finished steps every three seconds only
            assert run.validate() == []
            project.launchProtocol(run, wait=True, force=True)
            project._updateProtocol(run)
            assert run.isFinished(), f"{run.getClassName()}: {run.getErrorMessage()}"
        # Read here: paths of a project are relative to it.
        coordinates = getattr(run, "output3DCoordinates", None) or getattr(run, "rightPicks", None)
        if coordinates is not None:
            run.places = [(item.getTomoId(), item.getGroupId()) for item in coordinates.iterCoordinates()]
        run.told = "\n".join(run.summary())
        return run
    finally:
        os.chdir(folder)


@pytest.fixture
def tomograms(tmp_path: Path) -> dict[str, object]:
    """Two tomograms, one with a particle of the second kind, the other with three of the first."""
    (tmp_path / "tomograms").mkdir()
    write_mrc(tmp_path / "tomograms" / "ts_1.mrc", planted_tomogram({(5, 7, 11): 2}), VOXEL_SIZE_A)
    write_mrc(
        tmp_path / "tomograms" / "ts_2.mrc",
        planted_tomogram(dict.fromkeys([(9, 7, 11), (30, 7, 11), (50, 40, 20)], 1)),
        VOXEL_SIZE_A,
    )
    return {
        "tomograms": tmp_path / "tomograms",
        "tomograms_pattern": "*.mrc",
        "tomograms_voxel_size": VOXEL_SIZE_A,
        "contrast": 0,
    }


def test_reference_picking_from_a_folder_of_maps(tomograms: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    for name in ("one.mrc", "two.mrc"):
        write_mrc(tmp_path / "maps" / name, np.ones((8, 8, 8)), 5.0)
    maps = {"maps": tmp_path / "maps", "maps_pattern": "*.mrc", "maps_voxel_size": 5.0}
    run = made_and_run("tomotwin_reference_picking", "from_maps", **tomograms, **maps)
    assert sorted(run.places) == [("ts_1", 2), *ONES]


def test_reference_picking_from_a_structure_file(tomograms: dict[str, object], tmp_path: Path) -> None:
    structure = tmp_path / "mine.pdb"
    structure.write_text(STRUCTURE.format(x=11.1))
    run = made_and_run("tomotwin_structure_picking", "from_structure", **tomograms, structure=structure)
    assert run.places == ONES and "mine" in run.told


def test_reference_picking_from_an_identifier(tomograms: dict[str, object]) -> None:
    run = made_and_run("tomotwin_pdb_id_picking", "from_id", **tomograms, identifiers="pdb:4v6x")
    assert run.places == ONES and "4v6x" in run.told


def test_de_novo_picking(tomograms: dict[str, object]) -> None:
    run = made_and_run("tomotwin_de_novo_picking", "de_novo", **tomograms, fewest=3)
    assert sorted(run.places) == [("ts_1", 2), *ONES]


def test_a_model_is_trained_on_a_folder_of_structures(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"molecule_{number}.pdb").write_text(STRUCTURE.format(x=10.0 + number))
    aliases = {"structures": tmp_path, "structures_pattern": "*.pdb", "steps": 20, "validate_every": 10, "held_out": 1}
    run = made_and_run("tomotwin_train_on_structures", "trained", **aliases)
    assert Path(run.getProject().path, run.Model.getPath()).is_file() and "20" in run.told


def test_the_benchmark_judges_picks_of_simulated_tomograms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Judging is done by the real engine, everything before by the stand-in, which finds all that it planted.
    both = tmp_path / "tomotwin"
    stand_in = os.environ["TOMOTWIN_BIN"]
    both.write_text(f'#!/bin/sh\n[ "$1" = evaluate ] && exec {TOMOTWIN} "$@"\nexec {stand_in} "$@"\n')
    both.chmod(0o755)
    monkeypatch.setenv("TOMOTWIN_BIN", str(both))
    aliases = {"tomograms": 2, "molecules": "1abc, 2def", "copies": 1, "voxel_size": VOXEL_SIZE_A}
    size = {"size_x": 70, "size_y": 50, "size_z": 30}
    run = made_and_run("tomotwin_benchmark", "benchmark", **aliases, **size)
    assert run.getClassName() == "ProtTwinEvaluatePicks" and len(run.places) == 4
    assert run.rightPicks.getSize() == 4 and not hasattr(run, "falsePicks")
