"""Embeddings as colours: like places get like colours, in every tomogram that the axes were fitted to."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from planted import FieldMaker

from tomotwin_core.cli.main import main
from tomotwin_core.embedding.colours import fit_colours
from tomotwin_core.errors import UserError

KINDS = np.random.default_rng(5).normal(size=(4, 32))
KINDS /= np.linalg.norm(KINDS, axis=1, keepdims=True)


def planted(where: NDArray[np.int_], seed: int = 0) -> NDArray[np.float64]:
    """Unit vectors [z, y, x, 32] near those of the kinds."""
    noisy = KINDS[where] + np.random.default_rng(seed).normal(scale=0.02, size=(*where.shape, 32))
    unit: NDArray[np.float64] = noisy / np.linalg.norm(noisy, axis=-1, keepdims=True)
    return unit


def blocks(shape: tuple[int, int, int] = (6, 20, 30)) -> NDArray[np.int_]:
    """Background of kind 0 with a block of each other kind."""
    where = np.zeros(shape, int)
    where[:, 2:8, 2:8], where[:, 2:8, 15:21], where[2:4, 12:18, 5:11] = 1, 2, 3
    return where


def mean_colours(colours: NDArray[np.float32], where: NDArray[np.int_]) -> NDArray[np.float64]:
    return np.array([colours[where == kind].mean(axis=0) for kind in range(len(KINDS))])


def test_each_kind_has_a_colour_of_its_own_and_no_other(make_field: FieldMaker) -> None:
    where = blocks()
    field = make_field(planted(where))
    colours = fit_colours([field])(field.embeddings(0, 6))
    assert colours.shape == (6, 20, 30, 3) and colours.min() == 0 and colours.max() == 1
    means = mean_colours(colours, where)
    spread = max(colours[where == kind].std(axis=0).max() for kind in range(4))
    apart = min(np.abs(means[i] - means[j]).max() for i in range(4) for j in range(i))
    assert apart > 0.4 and spread < 0.1


def test_the_command_writes_three_volumes_on_the_grid_and_colours_hold_in_all_tomograms_of_the_fit(
    make_field: FieldMaker, tmp_path: Path
) -> None:
    where = blocks()
    one, two = make_field(planted(where), name="one"), make_field(planted(where[:, ::-1], 1), name="two")
    found = {}
    for field, positions in ((one, where), (two, where[:, ::-1])):
        call = ["map", field.path, "--pca", "--fit", one.path, two.path, "--out", tmp_path / "maps"]
        assert main([str(word) for word in call]) == 0
        volumes = []
        for number in (1, 2, 3):
            with mrcfile.open(tmp_path / "maps" / f"{field.tomogram}_pca{number}.mrc") as file:
                assert file.voxel_size.x == 20 and file.data.shape == (6, 20, 30)
                volumes.append(np.array(file.data))
        found[field.tomogram] = mean_colours(np.stack(volumes, axis=-1), positions)
    np.testing.assert_allclose(found["one"], found["two"], atol=0.02)


def test_other_models_missing_embeddings_and_tomograms_are_one_sentence(
    make_field: FieldMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field, other = make_field(planted(blocks())), make_field(planted(blocks()), name="b", model_hash="x")
    with pytest.raises(UserError, match="of one model, and these are of 2"):
        fit_colours([field, other])
    refs, out = ["--references", tmp_path / "r.safetensors"], ["--out", tmp_path / "maps"]
    for call, sentence in (
        ([field.path, *out, "--fit", other.path, *refs], "--fit says what --pca is fitted to"),
        ([field.path, *out, "--pca", "--fit", tmp_path / "none.zarr"], "none.zarr: no such embedding"),
    ):
        assert main(["map", *(str(word) for word in call)]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "maps").exists()
