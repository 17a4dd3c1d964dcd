"""Where the system gives too little: no room, no memory, no files, no rights, no home, no UTF-8, no streams, somebody else in the way."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import call, started, state_of, still_running, unfinished

from tomotwin_core.embedding import open_field

_ENGINE = [sys.executable, "-m", "tomotwin_core.cli.main"]


def _limited(kind: int, most: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (most, most))


def _ended(words: list[str], **options: object) -> tuple[int, str]:
    process = started(words, **options)
    said = process.communicate(timeout=240)[1] or ""
    return process.returncode, said


def _one_sentence(code: int, said: str) -> None:
    errors = [line for line in said.splitlines() if "error" in line]
    assert code == 2 and "Traceback" not in said and len(errors) == 1 and errors[0].startswith("tomotwin: error: "), (code, said)


@pytest.mark.parametrize("command", ["embed", "locate", "cluster", "convert"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(good: Path, tmp_path: Path, command: str) -> None:
    out = tmp_path / "out"
    _one_sentence(*_ended(call(command, good, out), preexec_fn=_limited(resource.RLIMIT_FSIZE, 1500)))
    assert not [p for p in out.rglob("*") if p.is_file()]


@pytest.mark.parametrize("most", [12, 24])
def test_few_open_files_are_enough_or_one_sentence(good: Path, tmp_path: Path, most: int) -> None:
    code, said = _ended(call("locate", good, tmp_path / "out"), preexec_fn=_limited(resource.RLIMIT_NOFILE, most))
    if code:
        _one_sentence(code, said)
    assert not unfinished(tmp_path)


@pytest.mark.parametrize("megabytes", [600, 1200])
def test_little_memory_is_enough_or_one_sentence(good: Path, tmp_path: Path, megabytes: int) -> None:
    code, said = _ended(call("convert", good, tmp_path / "out"), preexec_fn=_limited(resource.RLIMIT_AS, megabytes << 20))
    if code:
        _one_sentence(code, said)
    assert not unfinished(tmp_path)


@pytest.mark.parametrize("where", ["/proc/out", "/sys/out", "file/out", "x" * 300])
def test_a_place_that_cannot_be_written_to_is_one_sentence(good: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("in the way")
    for command in ("embed", "convert"):
        _one_sentence(*_ended(call(command, good, tmp_path / where)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_one_sentence(good: Path, tmp_path: Path) -> None:
    for name in ("star.star", "own.safetensors", "volume.mrc"):
        shutil.copy(good / name, tmp_path)
        (tmp_path / name).chmod(0)
    _one_sentence(*_ended(["convert", str(tmp_path / "star.star"), "--format", "coords", "--out", str(tmp_path / "o.coords")]))


def test_a_folder_that_has_gone_is_one_sentence(good: Path, tmp_path: Path) -> None:
    words = [*_ENGINE, *call("convert", good, tmp_path / "out")]
    script = 'cd "$0" && rmdir "$0" && exec "$@"'
    gone = tmp_path / "gone"
    gone.mkdir()
    run = subprocess.run(["bash", "-c", script, gone, *words], capture_output=True, text=True)
    _one_sentence(run.returncode, run.stderr)


def test_without_a_home_and_in_a_locale_without_umlauts_names_come_out_as_they_are(good: Path, tmp_path: Path) -> None:
    tomogram = tmp_path / "Zürich_größer.mrc"
    shutil.copy(good / "volume.mrc", tomogram)
    environment = {k: v for k, v in os.environ.items() if k != "HOME" and not k.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    environment |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    words = call("embed", good, tmp_path / "out")
    words[1] = str(tomogram)
    assert _ended(words, env=environment) == (0, "")
    field = tmp_path / "out" / "Zürich_größer.zarr"
    assert open_field(field).tomogram == "Zürich_größer"
    words = ["locate", str(field), "--references", str(good / "own.safetensors"), "--out", str(tmp_path), "--min-score", "-1"]
    code, said = _ended(words, env=environment)
    assert code == 0, said
    assert "Zürich_größer" in (tmp_path / "Zürich_größer_peaks.star").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [b"\xff\xfe.mrc", b"Z\xfcrich.mrc", b"a\nb.mrc", b"n" * 220 + b".mrc"])
def test_a_name_that_cannot_be_one_is_told_before_anything_is_computed(good: Path, tmp_path: Path, name: bytes) -> None:
    tomogram = os.path.join(os.fsencode(tmp_path), name)
    shutil.copy(good / "volume.mrc", tomogram)
    words = call("embed", good, tmp_path / "out")
    words[1] = os.fsdecode(tomogram)
    _one_sentence(*_ended(words))
    assert not (tmp_path / "out").exists()


def test_closed_streams_hinder_nobody(good: Path, tmp_path: Path) -> None:
    words = [*_ENGINE, *call("embed", good, tmp_path / "out")]
    run = subprocess.run(["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", *words], check=False)
    assert run.returncode == 0
    assert open_field(tmp_path / "out" / "volume.zarr").shape == (10, 11, 12)


@pytest.mark.parametrize(("stream", "code"), [(">/dev/full", 2), ("| true", 0), ("2>/dev/full", 0)])
def test_a_stream_that_takes_nothing_is_no_traceback(good: Path, tmp_path: Path, stream: str, code: int) -> None:
    words = [*_ENGINE, *call("convert", good, tmp_path / "out")]
    script = f'"$@" {stream}; exit ${{PIPESTATUS[0]}}'
    run = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True)
    assert run.returncode == code and "Traceback" not in run.stderr and "Exception ignored" not in run.stderr


@pytest.mark.parametrize("command", ["embed", "train"])
def test_of_two_at_once_on_one_output_one_is_refused_and_the_result_is_whole(good: Path, tmp_path: Path, command: str) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    first = started(call(command, good, out))
    until = time.monotonic() + 60
    while not list(out.glob(".lock*")) and first.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    code, said = _ended([*call(command, good, out), "--device", "cpu"])
    first_said = first.communicate(timeout=240)[1]
    assert first.returncode == 0, first_said
    if code == 0:  # it came when the first had ended
        assert command == "embed"
    else:
        _one_sentence(code, said)
        assert "is being written by another run of tomotwin" in said
    assert _ended(call(command, good, alone))[0] == 0
    assert state_of(out) == state_of(alone) and not unfinished(out)
    assert not still_running(first.pid)


def test_an_output_that_is_removed_meanwhile_is_no_half_embedding(good: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = started(call("embed", good, out))
    until = time.monotonic() + 60
    while not list(out.glob(".part-*")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    for left in out.glob(".part-*"):
        shutil.rmtree(left, ignore_errors=True)
    code, said = process.wait(timeout=120), process.communicate()[1]
    assert code in (0, 2) and "Traceback" not in said, said
    if (out / "volume.zarr").exists():
        open_field(out / "volume.zarr")
    assert _ended(call("embed", good, out))[0] == 0
