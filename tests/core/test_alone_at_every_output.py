"""Every command that writes refuses an output that another run writes, takes over what a dead one held, and leaves no lock."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from tomotwin_core.cli.main import main
from tomotwin_core.coordinates import Coordinates, write_coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.locks import alone_at, alone_at_all, alone_in
from tomotwin_core.tomogram import write_mrc

SHAPE = (24, 40, 40)
HELD = "is being written by another run of tomotwin"

_HOLDER = """
import sys, time
from pathlib import Path
from tomotwin_core.locks import alone_at
with alone_at(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tomogram of two balls, their positions as picks, peaks and truth, and a map of one."""
    folder = tmp_path_factory.mktemp("good")
    rng = np.random.default_rng(2)
    xyz = np.array([[12.0, 12, 12], [27, 26, 12]])
    volume = rng.normal(0, 0.3, SHAPE).astype(np.float32)
    for x, y, z in xyz:
        volume -= np.exp(-(((np.indices(SHAPE).T - [z, y, x]) ** 2).sum(-1).T) / 8)
    write_mrc(folder / "tomo.mrc", volume.astype(np.float32), 10.0)
    table = Coordinates.from_arrays(xyz, 10.0, "tomo", SHAPE, label="ball", score=[0.9, 0.8], diameter_A=80.0)
    write_coordinates(folder / "picks.star", table)
    ball = np.exp(-(((np.indices((24,) * 3).T - 11.5) ** 2).sum(-1).T) / 18).astype(np.float32)
    write_mrc(folder / "ball.mrc", ball, 5.0)
    return folder


def calls(good: Path, out: Path) -> dict[str, tuple[list[object], list[Path]]]:
    """Words of a call by command, and the files of it of which each may be held by another run."""
    picks, tomogram = good / "picks.star", good / "tomo.mrc"
    table, curves, picture = out / "table.csv", out / "curves.csv", out / "sheet.png"
    return {
        "pick": (
            ["pick", picks, "--out", out, "--threshold", "0.1", "--summary", table, "--curves", curves, "--contact-sheet", picture,
             "--tomograms", tomogram],
            [out / "tomo_picks.star", table, curves, picture],
        ),
        "convert": (["convert", picks, "--format", "relion5", "--out", out / "new.star"], [out / "new.star"]),
        "convert into a folder": (["convert", picks, "--format", "coords", "--out", out], [out / "tomo.coords"]),
        "mask": (["mask", tomogram, "--out", out / "mask.mrc", "--z-range", "2", "20"], [out / "mask.mrc"]),
        "evaluate": (
            ["evaluate", picks, "--truth", picks, "--out", table, "--curves", curves, "--plot", picture],
            [table, curves, picture],
        ),
        "orient": (
            ["orient", picks, "--tomograms", tomogram, "--reference", good / "ball.mrc", "--out", out, "--step", "60", "--finest", "30",
             "--background", "0", "--summary", table],
            [out / "tomo_oriented.star", table],
        ),
        "extract": (["extract", picks, "--tomograms", tomogram, "--box", "16", "--out", out], [out]),
        "view": (["view", tomogram, "--picks", picks, "--apply", picks, "--out", out / "kept.star"], [out / "kept.star"]),
        "reference": (["reference", good / "ball.mrc", "--out", out / "r.safetensors"], [out / "r.safetensors"]),
        "train settings": (["train", "--write-settings", out / "t.toml"], [out / "t.toml"]),
        "simulate settings": (["simulate", "--write-settings", out / "s.toml"], [out / "s.toml"]),
    }  # fmt: skip


NAMES = [*calls(Path(), Path())]


@pytest.mark.parametrize("name", NAMES)
def test_of_two_runs_on_one_output_the_later_is_refused(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    out = tmp_path / "out"
    words, files = calls(good, out)[name]
    for file in files:
        with alone_in(file) if name == "extract" else alone_at(file):
            assert main([str(word) for word in words]) == 2
            assert f"{file} {HELD}" in capsys.readouterr().err
        assert not [p for p in tmp_path.rglob("*") if p != out], "whoever is refused leaves nothing, and whoever ends no lock"


@pytest.mark.parametrize("name", [n for n in NAMES if n != "reference"])
def test_the_lock_of_a_dead_process_is_taken_over_and_no_lock_stays(good: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    words, files = calls(good, out)[name]
    held = files[0] if name != "extract" else out / "particles.star"
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, held], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert list(out.glob(".lock*")), "what was killed could not remove it"
    if name == "extract":
        (out / f".lock-{held.name}").rename(out / ".lock")
    if name == "view":
        words[words.index("--apply") + 1] = _session(good, tmp_path)
    assert main([str(word) for word in words]) == 0
    assert all(file.exists() for file in files) and not list(tmp_path.rglob(".*"))


def _session(good: Path, folder: Path) -> Path:
    """What the window saved."""
    from tomotwin_core.cli.view import save, session_of
    from tomotwin_core.coordinates import read_coordinates
    from tomotwin_core.tomogram import open_tomogram

    path = folder / "session.star"
    save(session_of([open_tomogram(good / "tomo.mrc")], [read_coordinates(good / "picks.star")]), path, [])
    return path


def test_where_the_file_system_has_no_locks_a_dead_holders_file_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: FileLock, *args: object, **options: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(FileLock, "acquire", none)
    output = tmp_path / "a.star"
    with alone_at(output):
        assert (tmp_path / ".lock-a.star-holder").is_file()
        with pytest.raises(UserError, match=HELD), alone_at(output, 0.05):
            pass
    assert not list(tmp_path.iterdir())
    dead = subprocess.run([sys.executable, "-c", _SOFT_AND_DEAD, output], capture_output=True, text=True)
    assert dead.returncode == 9 and (tmp_path / ".lock-a.star-holder").is_file(), dead.stderr
    with alone_at(output):
        pass
    assert not list(tmp_path.iterdir())


_SOFT_AND_DEAD = """
import os, sys
from filelock import SoftFileLock
lock = SoftFileLock(os.path.join(os.path.dirname(sys.argv[1]), ".lock-" + os.path.basename(sys.argv[1]) + "-holder"))
lock.acquire()
os._exit(9)
"""


def test_locks_of_several_files_are_held_together_and_none_stays_when_one_is_refused(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("b", "a", "c", "b")]
    with alone_at_all(names):
        assert sorted(p.name for p in tmp_path.iterdir()) == [".lock-a", ".lock-b", ".lock-c"]
    with alone_at(tmp_path / "c"), pytest.raises(UserError, match=HELD), alone_at_all(names):
        pass
    with alone_at_all([]):
        assert not list(tmp_path.iterdir())
