"""A folder of results is replaced as a whole or not at all, and what else is in it stays."""

import os
from pathlib import Path
from typing import Any

import pytest

from tomotwin_core import files
from tomotwin_core.clustering.output import CLUSTERS, RESULTS, settle
from tomotwin_core.errors import UserError
from tomotwin_core.files import finish_replacing, replaced_results
from tomotwin_core.locks import alone_in

NAMES = ("table.csv", "averages", "overview.png")


def _write(folder: Path, mark: str, clusters: int, overview: bool = True) -> None:
    with replaced_results(folder, "record.json", NAMES) as new:
        (new / "averages").mkdir()
        for number in range(clusters):
            (new / "averages" / f"{number}.mrc").write_text(mark)
        (new / "table.csv").write_text(mark)
        if overview:
            (new / "overview.png").write_text(mark)
        (new / "record.json").write_text(mark)


def _read(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(("before", "after"), [(3, 3), (5, 2), (2, 5), (1, 0), (0, 1)])
def test_nothing_of_an_earlier_result_stands_beside_the_new_one(tmp_path: Path, before: int, after: int) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    _write(tmp_path, "old", before)
    _write(tmp_path, "new", after, overview=False)
    expected = {f"averages/{n}.mrc": "new" for n in range(after)} | {"notes.txt": "mine", "record.json": "new", "table.csv": "new"}
    assert _read(tmp_path) == expected


@pytest.mark.parametrize("problem", [KeyboardInterrupt, UserError, ZeroDivisionError, MemoryError, SystemExit])
def test_what_is_not_finished_leaves_the_old_result_as_it_was(tmp_path: Path, problem: type[BaseException]) -> None:
    _write(tmp_path, "old", 2)
    before = _read(tmp_path)
    with pytest.raises(problem), replaced_results(tmp_path, "record.json", NAMES) as new:
        (new / "table.csv").write_text("new")
        raise problem
    assert _read(tmp_path) == before
    assert not list(tmp_path.glob(".*"))


def test_what_a_user_has_in_a_folder_of_that_name_is_not_taken_for_a_result(tmp_path: Path) -> None:
    (tmp_path / "averages").mkdir()
    (tmp_path / "averages" / "mine.mrc").write_text("precious")
    with pytest.raises(UserError, match="cannot be written"):
        _write(tmp_path, "new", 1)
    assert (tmp_path / "averages" / "mine.mrc").read_text() == "precious"


class _Killed(BaseException):
    """As a kill: nothing of ours runs after it."""


class _Stops:
    """Renames and removals until one of them, of which none happens any more."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, real: Any) -> Any:
        def counted(*args: Any, **options: Any) -> Any:
            if self.left <= 0:
                raise _Killed
            self.left -= 1
            return real(*args, **options)

        return counted


def _killed_at(folder: Path, step: int) -> bool:
    """Whether a replacing that dies at a step got that far."""
    stops = _Stops(step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "replace", stops(os.replace))
        patch.setattr(files, "remove", stops(files.remove))
        patch.setattr(Path, "unlink", stops(Path.unlink))
        try:
            _write(folder, "new", 3, overview=False)
        except _Killed:
            return True
    return False


def test_a_kill_at_any_step_leaves_the_old_results_or_the_new_ones(tmp_path: Path) -> None:
    outcomes = []
    for step in range(100):
        folder = tmp_path / str(step)
        _write(folder, "old", 2)
        (folder / "notes.txt").write_text("mine")
        old = _read(folder)
        if not _killed_at(folder, step):
            break
        left = {text for name, text in _read(folder).items() if not name.startswith((".", "notes"))}
        assert not (folder / "record.json").exists() or len(left) == 1, "old and new together never look like results"
        finish_replacing(folder, "record.json", NAMES)
        found = {name: text for name, text in _read(folder).items() if not name.startswith(".part-")}
        new = {f"averages/{n}.mrc": "new" for n in range(3)} | {"notes.txt": "mine", "record.json": "new", "table.csv": "new"}
        assert found in (old, new), f"step {step}"
        outcomes.append(found == new)
    assert outcomes == sorted(outcomes) and 3 <= sum(outcomes) < len(outcomes), "old until the new ones are complete"


def test_what_a_killed_run_left_half_replaced_is_finished_by_the_next(tmp_path: Path) -> None:
    for step in range(1, 9):
        folder = tmp_path / str(step)
        _write(folder, "old", 2)
        _killed_at(folder, step)
        _write(folder, "newest", 1)
        expected = {"averages/0.mrc", "record.json", "table.csv", "overview.png"}
        assert {name: text for name, text in _read(folder).items() if not name.startswith(".part-")} == dict.fromkeys(expected, "newest")


def test_readers_settle_a_folder_and_are_refused_while_another_run_is_at_it(tmp_path: Path) -> None:
    with replaced_results(tmp_path, CLUSTERS, RESULTS) as new:
        (new / CLUSTERS).write_text("old")
    ready = tmp_path / ".ready-results"
    ready.mkdir()
    for name, text in ((".names", '["clusters.csv"]'), ("clusters.csv", "new"), (CLUSTERS, "new")):
        (ready / name).write_text(text)
    with alone_in(tmp_path), pytest.raises(UserError, match="another run"):
        settle(tmp_path)
    settle(tmp_path)
    assert _read(tmp_path) == {CLUSTERS: "new", "clusters.csv": "new"}
