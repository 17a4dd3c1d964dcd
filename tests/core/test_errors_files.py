"""Atomic writing, provenance and progress."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from tomotwin_core import __version__
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path, provenance
from tomotwin_core.progress import duration, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_appears_under_its_name_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "result.star"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert temporary.parent == target.parent, "renaming is atomic within one folder only"
        assert temporary.suffix == ".star"
        assert not target.exists()
    assert target.read_text() == "half"
    assert [entry.name for entry in target.parent.iterdir()] == ["result.star"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_interrupted_write_leaves_the_old_content_and_nothing_else(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "result"
    with atomic_path(target) as temporary:
        _write(temporary, kind, "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        _write(temporary, kind, "new")
        raise KeyboardInterrupt
    assert _read(target) == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_stood_there_is_replaced_by_its_like(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "result"
    _write(target, kind, "old")
    with atomic_path(target) as temporary:
        _write(temporary, kind, "new")
    assert _read(target) == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result"]


@pytest.mark.parametrize(("before", "after"), [("file", "folder"), ("folder", "file")])
def test_a_folder_is_never_deleted_for_a_file_nor_a_file_for_a_folder(tmp_path: Path, before: str, after: str) -> None:
    target = tmp_path / "result"
    _write(target, before, "precious")
    sentence = f"result is there already and is a {before}: choose another name or remove it"
    with pytest.raises(UserError, match=sentence), atomic_path(target) as temporary:
        _write(temporary, after, "new")
    assert _read(target) == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    sentence = r"^.*file/result\.mrc cannot be written .*: choose another place"
    with pytest.raises(UserError, match=sentence), atomic_path(tmp_path / "file" / "result.mrc") as temporary:
        temporary.write_text("never")


def test_a_mistake_of_ours_is_not_dressed_up_as_the_users(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "result"):
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "never_written"):
        pass


def test_provenance_is_json_and_carries_versions_and_settings() -> None:
    made = provenance(
        seed=np.int64(3), source=Path("a/b.mrc"), shape=(1, 2), weights=np.array([0.5, 1]), extra={"x": np.float32(2)}
    )
    back = json.loads(json.dumps(made))
    assert back["software"] == f"tomotwin {__version__}"
    assert back["libraries"]["numpy"] == np.__version__
    expected = {"seed": 3, "source": "a/b.mrc", "shape": [1, 2], "weights": [0.5, 1], "extra": {"x": 2}}
    assert back["settings"] == expected


def test_progress_hands_on_every_item_and_writes_plain_lines_into_a_log() -> None:
    log = io.StringIO()
    assert list(progress(range(4), desc="embedding", unit="tiles", stream=log, interval_s=0)) == [0, 1, 2, 3]
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("embedding: 1 of 4 tiles, 25 %, ") and lines[0].endswith(" left")
    assert lines[-1].startswith("embedding: 4 of 4 tiles, 100 %, took ")
    assert len(lines) == 4
    assert "\r" not in log.getvalue()


def test_progress_counts_where_the_total_is_unknown_and_keeps_quiet_over_short_work() -> None:
    log = io.StringIO()
    assert list(progress(iter("ab"), stream=log, interval_s=0)) == ["a", "b"]
    assert log.getvalue().splitlines()[0] == "1"
    quiet = io.StringIO()
    assert list(progress([], stream=quiet)) == [] and list(progress([1], stream=quiet)) == [1]
    assert quiet.getvalue() == ""


def test_progress_draws_a_bar_on_a_terminal() -> None:
    terminal = Terminal()
    assert list(progress(range(3), desc="training", unit="steps", stream=terminal)) == [0, 1, 2]
    assert "training: 100%" in terminal.getvalue() and "3/3" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (48, "48 s"), (59.6, "1 min 00 s"), (130, "2 min 10 s"), (11100, "3 h 05 min")]
)
def test_durations_are_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def _write(path: Path, kind: str, text: str) -> None:
    if kind == "folder":
        path.mkdir()
        path = path / "content"
    path.write_text(text)


def _read(path: Path) -> str:
    return (path / "content" if path.is_dir() else path).read_text()
