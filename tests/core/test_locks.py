"""Locks: one run at a time on one output, none of them stale, and what killed runs left is removed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path
from tomotwin_core.locks import alone_at, alone_in

_HOLDER = """
import sys, time
from pathlib import Path
from tomotwin_core.locks import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_on_one_output_is_refused_and_others_are_not(tmp_path: Path) -> None:
    sentence = "is being written by another run of tomotwin: wait for its end, or give this one another --out"
    with alone_at(tmp_path / "a.zarr"), alone_in(tmp_path / "run"):
        with pytest.raises(UserError, match=f"a.zarr {sentence}"), alone_at(tmp_path / "a.zarr", 0.05):
            pass
        with pytest.raises(UserError, match=f"run {sentence}"), alone_in(tmp_path / "run"):
            pass
        with alone_at(tmp_path / "b.zarr"), alone_in(tmp_path / "other"):
            pass
    with alone_at(tmp_path / "a.zarr"), alone_in(tmp_path / "run"):
        pass
    assert not list(tmp_path.rglob(".lock*")), "nothing stays behind"


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another run"), alone_in(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with alone_in(tmp_path):
        pass
    holder.stdout.close()


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".part-0a1b2c3d-x.zarr", ".old-0a1b2c3d-x.zarr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "chunk").write_bytes(bytes(10))
    for name in (".part-0a1b2c3d-other.zarr", ".part-mine-x.zarr", "x.zarr", ".part-0a1b2c3d-xx.zarr"):
        (tmp_path / name).write_text("stays")
    with alone_at(tmp_path / "x.zarr"):
        assert sorted(os.listdir(tmp_path)) == [
            ".lock-x.zarr", ".part-0a1b2c3d-other.zarr", ".part-0a1b2c3d-xx.zarr", ".part-mine-x.zarr", "x.zarr",
        ]  # fmt: skip


@pytest.mark.parametrize("name", ["TS[01].zarr", "TS[!a].zarr", "a b.zarr", "TS*.zarr", "[[]].zarr"])
def test_names_with_signs_of_patterns_are_cleared_as_they_are(tmp_path: Path, name: str) -> None:
    left = tmp_path / f".part-0a1b2c3d-{name}"
    left.write_text("half")
    with alone_at(tmp_path / name):
        assert not left.exists()


@pytest.mark.parametrize("name", ["a\0b", "n" * 250, "file/below"])
def test_what_cannot_be_locked_or_written_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"), alone_at(tmp_path / name):
        pass
    with pytest.raises(UserError, match="cannot be written"), atomic_path(tmp_path / name) as temporary:
        temporary.write_text("never")
