"""An embedding is opened only where all of it is there and fits its tomogram; what is missing is made again."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tomotwin_core.embedding import embed_to_disk, open_field
from tomotwin_core.embedding.whole import IncompleteField
from tomotwin_core.errors import UserError
from tomotwin_core.model import EmbeddingNetwork, Model
from tomotwin_core.tomogram import open_tomogram, write_mrc


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, network: EmbeddingNetwork) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_mrc(folder / "tomo.mrc", np.random.default_rng(1).normal(100, 5, (24, 26, 28)).astype(np.float32), 10.0)
    embed_to_disk(open_tomogram(folder / "tomo.mrc"), Model(network, {}, Path("m")), folder / "tomo.zarr", tile=7)
    return folder


@pytest.fixture
def field(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "tomo.zarr", tmp_path / "tomo.zarr")
    shutil.copy2(made / "tomo.mrc", tmp_path / "tomo.mrc")
    return tmp_path / "tomo.zarr"


@pytest.fixture
def again(field: Path, network: EmbeddingNetwork) -> Callable[[], None]:
    def embed() -> None:
        embed_to_disk(open_tomogram(field.with_suffix(".mrc")), Model(network, {}, Path("m")), field, tile=7)

    return embed


def _chunks(field: Path, name: str = "embeddings") -> list[Path]:
    return sorted(p for p in (field / name / "c").rglob("*") if p.is_file())


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["embeddings", "particleness"])
@pytest.mark.parametrize("harm", [Path.unlink, _truncated, _endless, _emptied])
@pytest.mark.parametrize("which", [0, -1])
def test_a_part_that_is_missing_is_told_and_made_again(
    field: Path, again: Callable[[], None], name: str, harm: Callable[[Path], None], which: int,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = open_field(field).embeddings(0, 12)
    harm(_chunks(field, name)[which])
    with pytest.raises(IncompleteField, match=rf"tomo.zarr: 1 of 8 parts of its {name} are missing; embed the tomogram again"):
        open_field(field)
    again()
    assert "that is done now" in capsys.readouterr().out
    np.testing.assert_array_equal(open_field(field).embeddings(0, 12), before)


@pytest.mark.parametrize("left", [["embeddings"], ["zarr.json"], [], ["embeddings", "zarr.json"], ["particleness", "embeddings"]])
def test_half_an_embedding_under_its_final_name_is_made_again(field: Path, again: Callable[[], None], left: list[str]) -> None:
    for name in {"embeddings", "particleness", "zarr.json"} - set(left):
        shutil.rmtree(field / name) if (field / name).is_dir() else (field / name).unlink()
    with pytest.raises(UserError, match="tomo.zarr"):
        open_field(field)
    again()
    assert open_field(field).shape == (12, 13, 14)


def test_a_folder_that_is_something_else_is_not_written_over(field: Path, again: Callable[[], None]) -> None:
    (field / "zarr.json").unlink()
    (field / "letters.txt").write_text("precious")
    with pytest.raises(UserError, match="not an embedding"):
        again()
    assert (field / "letters.txt").read_text() == "precious"


def test_bytes_that_have_changed_are_found_when_they_are_read(field: Path) -> None:
    content = bytearray(_chunks(field)[0].read_bytes())
    content[100] ^= 255
    _chunks(field)[0].write_bytes(content)
    with pytest.raises(UserError, match="cannot be read .*; embed tomo again"):
        open_field(field).embeddings(0, 12)


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    def change(attributes: dict[str, Any]) -> None:
        for name, value in values.items():
            attributes.pop(name) if value is KeyError else attributes.update({name: value})

    return change


@pytest.mark.parametrize(
    "values",
    [
        {"tomogram": "../../up"}, {"tomogram": "/tmp/there"}, {"tomogram": 5}, {"tomogram": ""}, {"tomogram": "a\nb"},
        {"tomogram": "a\0b"}, {"tomogram": ".."}, {"tomogram": "x" * 300}, {"tomogram": "\udcff"},
        {"voxel_size_A": KeyError}, {"voxel_size_A": "10"}, {"voxel_size_A": float("nan")}, {"voxel_size_A": 0}, {"voxel_size_A": -8.0},
        {"shape": KeyError}, {"shape": "abc"}, {"shape": [24, 26]}, {"shape": [24, 26, -28]}, {"shape": [24, 26, 100000]},
        {"stride": 0}, {"stride": float("nan")}, {"stride": 2.5}, {"stride": KeyError}, {"model_voxel_size_A": float("inf")},
        {"model_hash": 7}, {"model_hash": KeyError}, {"contrast": "grey"}, {"statistics_share": "much"}, {"source": 4},
    ],
)  # fmt: skip
def test_attributes_are_not_believed(field: Path, values: dict[str, Any]) -> None:
    described = json.loads((field / "zarr.json").read_text())
    _set(**values)(described["attributes"])
    (field / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"tomo.zarr: .*; embed the tomogram again"):
        open_field(field)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("embeddings", (100000, 100000, 100000, 32)), ("embeddings", (0, 13, 14, 32)), ("embeddings", (12, 13, 14, 0)),
        ("embeddings", (12, 13, 14)), ("particleness", (12, 13, 14, 1)), ("particleness", (12, 13, 15)), ("particleness", (10**9, 1, 1)),
    ],
)  # fmt: skip
def test_arrays_of_another_shape_than_the_tomogram_asks_for_are_refused_before_anything_is_read(
    field: Path, name: str, shape: tuple[int, ...]
) -> None:
    described = json.loads((field / name / "zarr.json").read_text())
    described["shape"] = list(shape)
    chunk = described["chunk_grid"]["configuration"]["chunk_shape"]
    described["chunk_grid"]["configuration"]["chunk_shape"] = (chunk + [1])[: len(shape)]
    (field / name / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="embed the tomogram again"):
        open_field(field)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_the_network_does_not_give_is_no_embedding(field: Path, value: float) -> None:
    zarr.open_group(str(field), mode="a")["embeddings"][3, 4, 5, 6] = value  # type: ignore[index]
    opened = open_field(field)
    with pytest.raises(UserError, match="values that are no numbers; embed tomo again"):
        opened.embeddings(0, 12)
    with pytest.raises(UserError, match="values that are no numbers"):
        opened.at(np.array([[10.0, 8.0, 6.0]]))


def test_a_tomogram_is_known_by_its_content_not_by_its_date(field: Path, again: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    tomogram, before = field.with_suffix(".mrc"), open_field(field).embeddings(0, 12)
    dates = tomogram.stat()
    os.utime(tomogram, (1, 1))
    again()
    assert "already embedded" in capsys.readouterr().out, "the same content of another date"
    assert open_field(field).attributes["source"] == str(tomogram.resolve()), "and at another place"
    write_mrc(tomogram, np.random.default_rng(2).normal(100, 5, (24, 26, 28)).astype(np.float32), 10.0)
    os.utime(tomogram, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    again()
    assert "already" not in capsys.readouterr().out
    assert np.abs(open_field(field).embeddings(0, 12) - before).max() > 0.01


def test_the_tomogram_s_place_is_stored_whole(made: Path) -> None:
    assert open_field(made / "tomo.zarr").attributes["source"] == str((made / "tomo.mrc").resolve())
