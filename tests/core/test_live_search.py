"""A tomogram that is embedded while it is searched gives the picks of a stored embedding; many stand alone and go on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import FieldMaker, tiny_network
from test_picking import embeddings_with, target, unit

from tomotwin_core.cli.main import main
from tomotwin_core.coordinates import read_coordinates
from tomotwin_core.embedding import embed_to_disk
from tomotwin_core.embedding.live import LiveField
from tomotwin_core.model import Model, save_model
from tomotwin_core.model.checkpoint import load_model
from tomotwin_core.picking import LocationSettings, ReferenceSet, Target, locate
from tomotwin_core.regions import Region
from tomotwin_core.tomogram import open_tomogram, write_mrc

SHAPE = (52, 60, 66)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(path, tiny_network(), {})
    return load_model(path)


def write_tomogram(folder: Path, name: str, seed: int = 0) -> Path:
    path = folder / f"{name}.mrc"
    write_mrc(path, np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32), 10.0)
    return path


def random_references(model: Model, n: int = 3) -> ReferenceSet:
    return ReferenceSet(tuple(Target(f"t{i}", unit(i)[None], 60.0) for i in range(n)), model.hash)


def test_searching_while_embedding_finds_what_the_stored_embedding_gives(tmp_path: Path, model: Model) -> None:
    source = open_tomogram(write_tomogram(tmp_path, "tomo"))
    references, settings = random_references(model), LocationSettings(min_score=0.1)
    stored = locate(embed_to_disk(source, model, tmp_path / "tomo.zarr", tile=12), references, settings)
    live = locate(LiveField(source, model, tile=12), references, settings)
    assert len(stored) > 50 and abs(len(live) - len(stored)) <= 0.02 * len(stored)
    # The stored form is float16: a peak on the rim of two scores may fall either way.
    nearest = np.linalg.norm(live.xyz[:, None] - stored.xyz[None], axis=-1).min(1)
    assert np.quantile(nearest, 0.95) < 0.2
    assert live.tomogram == "tomo" and live.shape == SHAPE


def test_what_lies_outside_the_region_is_not_found_and_takes_no_ones_place(make_field: FieldMaker) -> None:
    # 4 grid steps are 80 A: closer than 0.6 x 160 A.
    planted = [((8, 8, 6), unit(1), 1.0), ((8, 8, 10), unit(1), 0.9)]
    field = make_field(embeddings_with((16, 16, 16), planted))
    everywhere = locate(field, ReferenceSet((target("a", 1),), "hash"), LocationSettings(min_score=0.7))
    np.testing.assert_allclose(everywhere.xyz / 2, [(6, 8, 8)], atol=0.5)
    excluded = np.zeros((16, 16, 16), bool)
    excluded[:, :, :8] = True
    region = Region(field.tomogram_shape, field.voxel_size_A, excluded=excluded)
    inside = locate(field, ReferenceSet((target("a", 1),), "hash"), LocationSettings(min_score=0.7), region)
    np.testing.assert_allclose(inside.xyz / 2, [(10, 8, 8)], atol=0.5)


def test_many_tomograms_in_one_call_are_sorted_stand_alone_and_go_on(
    tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, name in enumerate(("c", "a", "b")):
        write_tomogram(tmp_path, name, index)
    bad = np.zeros(SHAPE, np.float32)
    write_mrc(tmp_path / "bad.mrc", bad, 10.0)
    random_references(model).save(tmp_path / "refs.safetensors")
    files = [str(tmp_path / f"{n}.mrc") for n in ("c", "bad", "a", "b")]
    command = ["locate", *files, "--model", str(model.path), "--references", str(tmp_path / "refs.safetensors")]
    command += ["--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main(command) == 2
    said = capsys.readouterr()
    written = [line.split(":")[0] for line in said.out.splitlines()]
    assert [Path(w).name for w in written] == ["a_peaks.star", "b_peaks.star", "c_peaks.star"]
    assert "1 of 4 tomograms" in said.err and "bad" in said.err
    assert not list(tmp_path.glob("*.zarr")), "nothing of the embedding is kept"
    before = (tmp_path / "out" / "a_peaks.star").stat().st_mtime_ns
    good = [c for c in command if "bad" not in c]
    assert main(good) == 0
    assert capsys.readouterr().out.count("located already") == 3
    assert (tmp_path / "out" / "a_peaks.star").stat().st_mtime_ns == before
    replace_one = replace(random_references(model), targets=random_references(model).targets[:1])
    replace_one.save(tmp_path / "refs.safetensors")
    assert main(good) == 0, "other references, other peaks"
    assert "located already" not in capsys.readouterr().out
    assert set(read_coordinates(tmp_path / "out" / "a_peaks.star").label) == {"t0"}


def test_the_region_of_the_command_is_obeyed_for_stored_and_raw_tomograms(tmp_path: Path, model: Model) -> None:
    path = write_tomogram(tmp_path, "tomo")
    mask = np.zeros(SHAPE, np.int8)
    mask[:, 20:40] = 1
    write_mrc(tmp_path / "mask.mrc", mask, 10.0)
    random_references(model).save(tmp_path / "refs.safetensors")
    embed_to_disk(open_tomogram(path), model, tmp_path / "tomo.zarr")
    for given in (path, tmp_path / "tomo.zarr"):
        out = tmp_path / given.suffix[1:]
        command = ["locate", str(given), "--references", str(tmp_path / "refs.safetensors"), "--out", str(out)]
        command += ["--min-score", "0", "--z-range", "10", "30", "--mask", str(tmp_path / "mask.mrc")]
        assert main([*command, "--model", str(model.path)]) == 0
        xyz = read_coordinates(out / "tomo_peaks.star").xyz
        assert len(xyz) > 5
        assert (
            xyz[:, 2].min() >= 9.5 and xyz[:, 2].max() <= 30.5 and xyz[:, 1].min() >= 19.5 and xyz[:, 1].max() <= 39.5
        )
    path.unlink()
    missing = ["locate", str(tmp_path / "tomo.zarr"), "--references", str(tmp_path / "refs.safetensors"), "--auto-slab"]
    assert main([*missing, "--out", str(tmp_path / "x")]) == 2


def test_maps_of_a_raw_tomogram_are_those_of_its_embedding(tmp_path: Path, model: Model) -> None:
    path = write_tomogram(tmp_path, "tomo")
    random_references(model, 2).save(tmp_path / "refs.safetensors")
    embed_to_disk(open_tomogram(path), model, tmp_path / "tomo.zarr")
    for given in (path, tmp_path / "tomo.zarr"):
        command = ["map", str(given), "--references", str(tmp_path / "refs.safetensors"), "--model", str(model.path)]
        assert main([*command, "--out", str(tmp_path / given.suffix[1:])]) == 0
    live, stored = (open_tomogram(tmp_path / kind / "tomo_t1.mrc") for kind in ("mrc", "zarr"))
    assert live.shape == stored.shape == (26, 30, 33) and live.voxel_size_A == pytest.approx(20.0)
    np.testing.assert_allclose(live.slab(0, 26), stored.slab(0, 26), atol=2e-3)
