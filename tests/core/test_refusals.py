"""What the system refuses is one sentence, told in one place; mistakes of ours keep their traceback."""

import errno
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tomotwin_core.cli import convert
from tomotwin_core.cli.main import main
from tomotwin_core.cli.refusals import refusal
from tomotwin_core.side_by_side import end_with_parent

_CALL = ["convert", "x.star", "--format", "star", "--out", "y.star"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a"), "a: No space left on device; make room on the disk"),
        (OSError(errno.EMFILE, "Too many open files", "b"), "ulimit -n"),
        (OSError(errno.EFBIG, "File too large"), "the system refused (File too large): raise the limit of file sizes"),
        (PermissionError(errno.EACCES, "Permission denied", "c"), "c: Permission denied; change its permissions"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "d"), "give a shorter name"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "called in is not there any more"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", b"\xff"), "'\\udcff': No such file"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "there is not enough memory"),
        (MemoryError(), "there is not enough memory"),
        (MemoryError("Unable to allocate 347 GiB"), "347 GiB"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (RuntimeError("unable to mmap 32020 bytes from file <a>: Cannot allocate memory (12)"), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "not enough memory"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (UnicodeEncodeError("latin-1", "aŁb", 1, 2, "ordinal"), "'\\u0141' cannot be written as latin-1"),
        (RecursionError("maximum recursion depth exceeded"), "nests too deep"),
    ],
)
def test_what_the_system_refuses_is_one_sentence_and_exit_code_2(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(options: object) -> None:
        raise error

    monkeypatch.setattr(convert, "run", refuse)
    assert main(_CALL) == 2
    said = capsys.readouterr().err
    assert said.startswith("tomotwin: error: ") and words in said and said.count("\n") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), KeyError("a"), ValueError("b"), RuntimeError("c"), TypeError("d")])
def test_mistakes_of_ours_keep_their_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(error) is None

    def fail(options: object) -> None:
        raise error

    monkeypatch.setattr(convert, "run", fail)
    with pytest.raises(type(error)):
        main(_CALL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_as_ctrl_c_does(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(options: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    before = signal.getsignal(number)
    monkeypatch.setattr(convert, "run", killed)
    assert main(_CALL) == 128 + number
    assert f"ended by {number.name}" in capsys.readouterr().err
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["locate", "x.zarr", "--references", "r", "--out", "o", "--min-score", "nan"], "--min-score nan: give a number"),
        (["cluster", "x.zarr", "--out", "o", "--salience", "inf"], "--salience inf: give a number"),
        (["cluster", "x.zarr", "--out", "o", "--seed", str(2**70)], "--seed 1180591620717411303424: is too large"),
        (["cluster", "x.zarr", "--out", "o", "--fewest", "1000000000"], "--fewest 1000000000"),
        (["embed", "x.mrc", "--out", "a\0b"], "--out 'a\\x00b': no file can be called so"),
        (["embed", "x\0.mrc", "--out", "a"], "no file can be called so"),
        (["simulate", "--out", "o", "--defocus", "1", "nan"], "--defocus nan: give a number"),
        (["simulate", "--out", "o", "--seed", "-1"], "seed -1"),
        (["embed", "x.mrc", "--out", "a", "--threads", "999999"], "x.mrc"),
    ],
)
def test_options_that_are_no_numbers_or_no_paths_are_told(
    words: list[str], fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert fault in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")
def test_a_worker_ends_when_its_parent_is_gone() -> None:
    read, write = os.pipe()
    parent = os.fork()
    if not parent:
        worker = os.fork()
        if not worker:
            end_with_parent(every_s=0.01)
            time.sleep(30)
            os._exit(0)
        os.write(write, str(worker).encode())
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    worker = int(os.read(read, 20))
    os.waitpid(parent, 0)
    until = time.monotonic() + 5
    while Path(f"/proc/{worker}").exists() and _is_alive(worker) and time.monotonic() < until:
        time.sleep(0.01)
    assert not _is_alive(worker)
    os.close(read)
    os.close(write)


def _is_alive(process: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
