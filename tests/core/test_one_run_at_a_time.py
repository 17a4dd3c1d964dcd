"""Of two runs on one output the later one is refused before it changes anything; a training that is refused changes nothing."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tomotwin_core.cli.main import main
from tomotwin_core.errors import UserError
from tomotwin_core.locks import alone_at, alone_in
from tomotwin_core.model import NetworkSettings
from tomotwin_core.training.run import prepare
from tomotwin_core.training.settings import TrainingPlan, TrainingSettings, ValidationSettings
from tomotwin_core.training.state import write_state

PLAN = TrainingPlan(
    TrainingSettings(steps=1, workers=0), network=NetworkSettings((3, 4, 5, 6, 8), 8), validation=ValidationSettings(every=0)
)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("other", [{"widths": (3, 4, 5, 6, 9)}, {"head": 9}, {"embedding_size": 16}, {"widths": (4, 4, 5, 6, 8)}])
def test_a_training_that_does_not_fit_its_folder_leaves_the_settings_of_the_run_there(tmp_path: Path, other: dict) -> None:
    prepare(tmp_path, PLAN).save()
    before = _files(tmp_path)
    with pytest.raises(UserError, match="does not fit these settings"):
        prepare(tmp_path, replace(PLAN, network=replace(PLAN.network, **other)))
    assert _files(tmp_path) == before


@pytest.mark.parametrize("state", [{"step": "x"}, {"step": None}, {}, {"step": 1}, {"step": 1, "best": 3}])
def test_a_training_on_a_state_that_is_none_changes_nothing(tmp_path: Path, state: dict) -> None:
    prepare(tmp_path, PLAN).save()
    from safetensors.torch import save_file

    save_file({"network.a": torch.ones(3)}, tmp_path / "last.safetensors", {"counters": str(state).replace("'", '"').replace("None", "null")})
    before = _files(tmp_path)
    with pytest.raises(UserError, match=r"last.safetensors"):
        prepare(tmp_path, PLAN)
    assert _files(tmp_path) == before


def _refused(words: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(word) for word in words]) == 2
    assert "is being written by another run of tomotwin" in capsys.readouterr().err


def test_every_command_that_takes_long_waits_for_nobody_and_takes_nothing_from_anybody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with alone_in(out):
        _refused(["train", "--out", out, "--steps", 1], capsys)
        _refused(["cluster", tmp_path / "x.zarr", "--out", out], capsys)
    with alone_at(out / "tomo_02.mrc"):
        _refused(["simulate", "--out", out, "--tomograms", 2, "--species", "1dzl"], capsys)
    with alone_at(out / "m.safetensors"):
        for name in ("a.mrc", "a.star"):
            shutil.copy(__file__, tmp_path / name)
        _refused(["adapt", "--tomograms", tmp_path / "a.mrc", "--positions", tmp_path / "a.star", "--out", out / "m.safetensors"], capsys)
    assert not list(out.iterdir()), "whoever is refused leaves nothing"


def test_leftovers_of_a_killed_training_go_with_the_next(tmp_path: Path) -> None:
    from tomotwin_core.training.trainer import FILES

    names = ["last.safetensors", "last.7.1.safetensors", "model.json", "best.safetensors", "settings.toml", "cache/t.npy", "log.csv"]
    (tmp_path / "cache").mkdir()
    for name in names:
        path = tmp_path / name
        path.with_name(f".part-0a1b2c3d-{path.name}").write_bytes(bytes(3))
    write_state(tmp_path, {"a": torch.from_numpy(np.ones(2, np.float32))}, {"step": 1})
    with alone_in(tmp_path, FILES):
        assert [p.name for p in tmp_path.rglob(".*")] == [".lock"]
