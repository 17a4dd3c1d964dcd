"""Adapting a model: the target comes out of the crowd, what the model knew stays."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import tiny_network
from planted_training import PlantedSource
from test_training_data import write_tomogram

from tomotwin_core.cli.main import main
from tomotwin_core.embedding import DenseEmbedder
from tomotwin_core.errors import UserError
from tomotwin_core.model import EmbeddingNetwork, Model, load_model, save_model
from tomotwin_core.structures.library import DensityLibrary
from tomotwin_core.training import adapting
from tomotwin_core.training.adapting import AdaptSettings, _Windows, _without_likely_particles, adapt
from tomotwin_core.training.settings import DataSettings
from tomotwin_core.training.sources import ListedTomogram, listed_tomograms

QUICK = AdaptSettings(steps=60, pieces=4, replay=2, learning_rate=3e-3)


@pytest.fixture(autouse=True)
def simulation_that_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapting, "LiveSource", lambda library, plan, device: PlantedSource())
    monkeypatch.setattr(adapting, "_PIECE", (32, 40, 40))


def cubes(folder: Path) -> ListedTomogram:
    (whole,) = listed_tomograms(DataSettings(folders=(str(folder),)))
    return ListedTomogram(whole.source, whole.listed.by_label()["cube"], complete=True)


def weak_model() -> Model:
    """One whose last layer hardly looks at what the layers before it found."""
    network = tiny_network(1)
    with torch.no_grad():
        network.head[-1].weight *= 0.02
        network.head[-1].bias += 1.0
    return Model(network, {"training": {"steps": 5}, "figures": {"x": 1}}, Path("weak"))


def separation(network: EmbeddingNetwork, tomogram: ListedTomogram, cache: Path) -> float:
    """Mean cosine between two cubes less that between a cube and a place away from all cubes."""
    (file,) = cache.glob("*.npy")
    embeddings, _ = DenseEmbedder(network).whole(np.load(file).astype(np.float32))
    at = np.round(tomogram.listed.xyz[:, ::-1] / 2).astype(int)
    grid = np.argwhere(np.ones(embeddings.shape[:3], bool))
    away = (np.linalg.norm(grid[:, None] - at[None], axis=-1) > 4).all(1)
    cubes, rest = embeddings[tuple(at.T)], embeddings[tuple(grid[away].T)]
    return float((cubes @ cubes.T)[~np.eye(len(cubes), dtype=bool)].mean() - (cubes @ rest.T).mean())


def known(network: EmbeddingNetwork) -> torch.Tensor:
    """Embeddings of windows that the fit does not see, of the kind that stands for what the model knows."""
    volume = torch.from_numpy(next(PlantedSource().pairs(77, 0))[0].volume)[None, None]
    with torch.no_grad():
        return network.dense(torch.nn.functional.pad(volume, (16,) * 6))[:32].flatten(1).T


@pytest.mark.parametrize("layers", ["last", "head", "late"])
def test_the_target_stands_apart_after_the_fit_and_the_first_layers_are_as_before(tmp_path: Path, layers: str) -> None:
    write_tomogram(tmp_path, "one")
    model, tomogram = weak_model(), cubes(tmp_path)
    network, card = adapt(
        model, [tomogram], DensityLibrary({}, {}), tmp_path / "c", replace(QUICK, layers=layers, keep=0.1)
    )
    before, after = (separation(n, tomogram, tmp_path / "c") for n in (model.network, network))
    assert before < 0.001 and after > 0.02
    moved = {
        n.split(".")[0] for n, p in network.state_dict().items() if not torch.equal(p, model.network.state_dict()[n])
    }
    assert moved == {"last": {"head"}, "head": {"head"}, "late": {"head", "late"}}[layers]
    assert not network.training and all(
        "running" not in n or torch.equal(p, model.network.state_dict()[n]) for n, p in network.state_dict().items()
    )
    assert card["adapted"]["targets"] == {"cube": 9} and card["adapted"]["from"] == model.hash
    assert card["training"] == {"steps": 5} and "figures" not in card, "figures were measured with the model before"


def test_what_the_model_knew_stays_where_it_was_the_more_the_more_it_weighs(tmp_path: Path) -> None:
    write_tomogram(tmp_path, "one")
    model = Model(tiny_network(1), {}, Path("m"))
    before = torch.nn.functional.normalize(known(model.network), dim=1)
    similarity = []
    for keep in (0.0, 100.0):
        network, _ = adapt(model, [cubes(tmp_path)], DensityLibrary({}, {}), tmp_path / "c", replace(QUICK, keep=keep))
        after = torch.nn.functional.normalize(known(network), dim=1)
        similarity.append(float((before * after).sum(1).mean()))
    assert similarity[1] > 0.95 and 1 - similarity[1] < 0.5 * (1 - similarity[0])


def test_background_that_looks_like_the_target_is_left_out_where_it_may_be_one() -> None:
    embedding = torch.eye(32)[[0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]
    label = torch.tensor([0, 0] + [-1] * 10)
    windows = _Windows(torch.arange(12.0)[:, None], embedding, torch.zeros(12), label)
    left = _without_likely_particles(windows, 0.1)
    assert left.inputs.flatten().tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11], "the one like the target is gone"


def test_too_few_positions_and_settings_that_cannot_be_are_told(tmp_path: Path) -> None:
    write_tomogram(tmp_path, "one")
    few = replace(cubes(tmp_path), listed=cubes(tmp_path).listed.select(np.arange(4)))
    with pytest.raises(UserError, match="cube: 4 positions, at least 5"):
        adapt(weak_model(), [few], DensityLibrary({}, {}), tmp_path / "c", QUICK)
    with pytest.raises(UserError, match="choose last, head or late"):
        AdaptSettings(layers="all")


def test_the_command_writes_a_model_that_embed_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tomogram(tmp_path, "one")
    save_model(tmp_path / "small.safetensors", tiny_network(1), {})
    command = ["adapt", "--tomograms", str(tmp_path / "one.mrc"), "--positions", str(tmp_path / "one_truth.star")]
    command += ["--model", str(tmp_path / "small.safetensors"), "--steps", "3", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "new.txt")]) == 2
    assert "ends in .safetensors" in capsys.readouterr().err
    (tmp_path / "cube.coords").write_text("".join(f"{x} {y} 15\n" for x in (8, 24, 40, 56) for y in (8, 24)))
    command[4] = str(tmp_path / "cube.coords")
    command += ["--diameter", "100", "--out", str(tmp_path / "new.safetensors")]
    assert main(command) == 0
    adapted = load_model(tmp_path / "new.safetensors")
    assert adapted.card["adapted"]["targets"] == {"cube": 8}
    assert adapted.hash != load_model(tmp_path / "small.safetensors").hash
    assert (
        main(["embed", str(tmp_path / "one.mrc"), "--model", str(tmp_path / "new.safetensors"), "--out", str(tmp_path)])
        == 0
    )
