"""A folder of results is replaced as a whole or not at all, and what else is in it stays."""

from pathlib import Path

import pytest

from tomotwin_core.errors import UserError
from tomotwin_core.files import replaced_results

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
