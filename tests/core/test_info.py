"""`tomotwin info` without a file: the lines that someone who helps asks for first."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tomotwin_core
from tomotwin_core.cli.info import devices
from tomotwin_core.cli.main import main
from tomotwin_core.model import load_model
from tomotwin_core.tomogram import write_mrc


def test_it_names_the_program_its_python_the_libraries_and_the_released_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["info"]) == 0
    told = capsys.readouterr().out
    model = load_model()
    for words in (
        f"tomotwin {tomotwin_core.__version__} in {Path(tomotwin_core.__file__).parent}",
        f"Python {platform.python_version()}, {sys.executable}",
        f"torch {torch.__version__}",
        f"released model {model.hash}: {model.path}",
        f"{model.network.n_parameters} parameters",
        "zarr ",
    ):
        assert words in told
    assert "missing" not in told


def test_each_gpu_is_named_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [SimpleNamespace(name="A40", total_memory=48 * 2**30), SimpleNamespace(name="T4", total_memory=16 * 2**30)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: cards[number])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert devices()[1:] == [
        "GPU 0: A40, 48 GB of memory",
        "GPU 1: T4, 16 GB of memory",
        "  numbered as CUDA_VISIBLE_DEVICES=2,3 leaves them",
    ]


@pytest.mark.parametrize(
    ("cuda", "visible", "words"),
    [
        (None, None, "this build of torch has no CUDA"),
        ("12.6", "", "built for CUDA 12.6, but CUDA_VISIBLE_DEVICES hides them all"),
        ("12.6", None, "built for CUDA 12.6, but no driver for it, or no card, is found"),
    ],
)
def test_where_there_is_no_gpu_the_reason_is_told(
    cuda: str | None, visible: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert words in devices()[1]


def test_a_molecule_is_as_wide_and_heavy_as_it_was_made_bright_or_dark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ball = (np.linalg.norm(np.indices((41, 41, 41)) - 20, axis=0) * 5 <= 60).astype(np.float32)
    write_mrc(tmp_path / "bright.mrc", ball, 5.0)
    write_mrc(tmp_path / "dark.mrc", -ball, 5.0)
    told = []
    for name, more in (("bright.mrc", []), ("dark.mrc", ["--dark"])):
        assert main(["info", "--molecule", str(tmp_path / name), *more]) == 0
        told.append(capsys.readouterr().out.partition(": ")[2])
    mass, across = (float(word) for word in re.findall(r"[\d.]+", told[0]))
    assert told[0] == told[1] and across == pytest.approx(120, abs=5)
    assert mass == pytest.approx(4 / 3 * np.pi * 60**3 / 1.21 / 1000, rel=0.1), "protein has 1.21 A^3 per Da"
    assert main(["info", "--molecule", "library:none"]) == 2
    assert "none" in capsys.readouterr().err


def test_a_missing_library_is_told_in_one_sentence_after_what_is_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as where only the plugin is installed
    monkeypatch.setattr("tomotwin_core.cli.info._version", lambda name: "missing")
    assert main(["info"]) == 2
    told = capsys.readouterr()
    assert "torch missing" in told.out and f"Python {platform.python_version()}" in told.out
    assert told.err == (
        f"tomotwin: error: torch is not installed for {sys.executable}: pip install 'tomotwin-scipion[engine]'\n"
    )


def test_an_older_python_is_told_and_where_the_engine_can_live(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))
    assert main(["--help"]) == 2
    assert "needs Python 3.11 or later" in capsys.readouterr().err
