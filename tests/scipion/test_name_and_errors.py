"""How the plugin is called, what it says where scipion-em-tomo is missing, and how an engine's failure becomes a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tomotwin_scipion import Plugin, protocols
from tomotwin_scipion.errors import SCRIPT, reason_of, sentence_of

WITHOUT_TOMO = "import sys; sys.modules['tomo'] = None; import tomotwin_scipion"


@pytest.mark.parametrize("name", protocols.__all__)
def test_labels_begin_with_a_short_name_without_what_methods_would_print_in_italics(project: object, name: str) -> None:
    label = getattr(protocols, name).getClassLabel()
    assert label.startswith("TomoTwin - ") and "_" not in label


def test_the_plugin_has_a_page_of_its_own_method() -> None:
    assert Plugin.getUrl().startswith("https://doi.org/10.1038/s41592-023-01878-z")


def test_a_missing_scipion_em_tomo_is_told_with_the_command_that_installs_it() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT_TOMO], capture_output=True, text=True)
    last = run.stderr.splitlines()[-1]
    assert run.returncode == 1 and "needs the plugin scipion-em-tomo" in last
    assert "scipion installp -p scipion-em-tomo" in last


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (2, "tomotwin: error: a.mrc: is constant.\n", "a.mrc: is constant."),
        (2, "10 %\r20 %\rtomotwin: error: a.mrc: is constant.\n", "a.mrc: is constant."),
        (2, "usage: tomotwin embed\ntomotwin embed: error: argument --device: no such\n", "argument --device: no such"),
        (2, "tomotwin: error: first\nwarning\ntomotwin: error: second one\n", "second one"),
        (1, "Traceback\n  File x\nValueError: of ours\n", "tomotwin embed failed with exit status 1: ValueError: of ours (see the log of the run)."),
        (1, "", "tomotwin embed failed with exit status 1 (see the log of the run)."),
        (127, "sh: 1: tomotwin: not found\n", "tomotwin embed failed with exit status 127: sh: 1: tomotwin: not found (see the log of the run)."),
        (137, "10 %\r", "tomotwin embed was ended by signal 9 (often for want of memory); Continue goes on where it was."),
        (-15, "", "tomotwin embed was ended by signal 15; Continue goes on where it was."),
    ],
)  # fmt: skip
def test_a_failure_is_told_in_the_engines_sentence_or_else_in_ours(tmp_path: Path, status: int, text: str, reason: str) -> None:
    (tmp_path / "told.txt").write_bytes(text.encode())
    assert reason_of("embed", status, str(tmp_path / "told.txt")) == reason


def test_nothing_was_told_where_nothing_was_written(tmp_path: Path) -> None:
    assert sentence_of(str(tmp_path / "none.txt")) is None
    assert reason_of("map", 3, str(tmp_path / "none.txt")) == "tomotwin map failed with exit status 3 (see the log of the run)."


@pytest.mark.parametrize(
    ("command", "status", "out", "error"),
    [
        ("echo a; exit 0", 0, "a\n", ""),
        ("echo a; echo b >&2; exit 2", 2, "a\n", "b\n"),
        ("printf 'x\\ry' >&2; exit 5", 5, "", "x\ry"),
        ("kill -9 $$", 137, "", "Killed\n"),
        ("echo \"$0\" '%(GPU)s' \\\\", 0, "sh %(GPU)s \\\n", ""),
    ],
)
def test_a_command_that_is_kept_runs_as_it_is(tmp_path: Path, command: str, status: int, out: str, error: str) -> None:
    path = tmp_path / "with a space.txt"
    run = subprocess.run(["sh", SCRIPT, str(path), "sh", "-c", command], capture_output=True)
    assert (run.returncode, run.stdout.decode()) == (status, out)
    assert path.read_bytes().decode() == error and run.stderr.decode().startswith(error)
