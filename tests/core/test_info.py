"""`tomotwin info` without a file: the lines that someone who helps asks for first."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import tomotwin_core
from tomotwin_core.cli.info import devices
from tomotwin_core.cli.main import main
from tomotwin_core.model import load_model


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
