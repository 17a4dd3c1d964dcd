"""Several items at once: that they are, each on one thread, and that nothing of it stays."""

import os
import sys
import threading
from pathlib import Path

import pytest
import torch

from tomotwin_core.errors import UserError
from tomotwin_core.side_by_side import _script_without_guard, in_processes, side_by_side


@pytest.fixture(autouse=True)
def two_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_as_many_work_at_once_as_there_are_threads_each_on_one() -> None:
    both = threading.Barrier(2, timeout=20)

    def work(item: int) -> tuple[int, int]:
        both.wait()  # breaks where one would work alone
        return item * item, torch.get_num_threads()

    assert list(side_by_side(work, range(4))) == [(0, 1), (1, 1), (4, 1), (9, 1)]
    assert torch.get_num_threads() == 2


def test_an_error_comes_through_and_threads_are_as_before() -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    with pytest.raises(ValueError, match="two"):
        list(side_by_side(work, range(4)))
    assert torch.get_num_threads() == 2


def squared(item: int) -> tuple[int, int, int]:
    if item < 0:
        raise UserError("less than nothing")
    if item == 0:
        os._exit(9)  # as where memory runs out
    return item * item, torch.get_num_threads(), os.getpid()


def test_processes_work_on_one_thread_each_and_their_errors_come_through() -> None:
    found = list(in_processes(squared, [1, 2, 3]))
    assert [f[:2] for f in found] == [(1, 1), (4, 1), (9, 1)]
    assert os.getpid() not in {f[2] for f in found} and torch.get_num_threads() == 2
    with pytest.raises(UserError, match="less than nothing"):
        list(in_processes(squared, [-1]))
    with pytest.raises(UserError, match="for want of memory"):
        list(in_processes(squared, [0, 1]))


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.py", "print(1)\n", True),
        ("a.py", 'if __name__ == "__main__":\n    print(1)\n', False),
        ("a.py", "if '__main__' == __name__:\n    print(1)\n", False),
        ("tomotwin", "import sys\n", False),
        ("gone.py", None, False),
    ],
)
def test_a_script_without_a_guard_is_told_from_want_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None, told: bool
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / name), raising=False)
    assert _script_without_guard() == told
