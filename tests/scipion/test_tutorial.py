"""The tutorial's own steps, taken out of its text and run as they stand there, with the real engine; about a minute."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TOMOTWIN
from pyworkflow.project import Manager

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = [
    pytest.mark.skipif(not os.path.exists(TOMOTWIN), reason="the engine is not installed here"),
    pytest.mark.usefixtures("real_engine"),
]


def test_the_steps_of_the_tutorial_run_as_they_stand_there_and_find_the_molecules(tmp_path: Path) -> None:
    blocks = BLOCK.findall(TUTORIAL.read_text())
    assert [language for language, _ in blocks].count("python") >= 6
    told = run_in_order(blocks, tmp_path)
    assert told.count("expected FDR") >= 2  # both summaries of picking

    here = os.getcwd()
    try:
        runs = {run.getClassName(): run for run in Manager().loadProject("tutorial").getRuns()}
        assert len(runs) == 4 and all(run.isFinished() for run in runs.values())
        truth, picks, right = (
            getattr(runs[name], output).getSize()
            for name, output in (
                ("ProtTwinSimulateTomograms", "output3DCoordinates"),
                ("ProtTwinReferencePicking", "output3DCoordinates"),
                ("ProtTwinEvaluatePicks", "rightPicks"),
            )
        )
        assert truth / 2 <= right <= truth <= 16
        assert picks >= right  # the sixth step took more picks of the same search
        assert len((tmp_path / "picks.tbl").read_text().splitlines()) == picks
    finally:
        os.chdir(here)


def run_in_order(blocks: list[tuple[str, str]], folder: Path) -> str:
    """Run shell blocks one by one, and the Python between them as one script; returns what was printed."""
    script = "\n".join(text for language, text in blocks if language == "python")
    (folder / "tutorial.py").write_text(script)
    last = max(number for number, (language, _) in enumerate(blocks) if language == "python")
    before = [text for language, text in blocks[:last] if language == "sh"]
    after = [text for language, text in blocks[last:] if language == "sh"]
    calls = [["bash", "-euc", text] for text in before] + [[sys.executable, "tutorial.py"]]
    calls += [["bash", "-euc", text] for text in after]
    told = ""
    for call in calls:
        done = subprocess.run(call, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        told += done.stdout
    return told
