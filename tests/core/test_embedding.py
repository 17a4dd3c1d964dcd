"""Dense embedding in tiles, and the embedding field on disk."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from planted import FieldMaker, tiny_network
from scipy import ndimage

from tomotwin_core.cli.main import main as tomotwin
from tomotwin_core.embedding import DenseEmbedder, embed_to_disk, grid_shape, open_field, pick_device
from tomotwin_core.embedding.dense import Tile, chosen_precision, sampled_pieces
from tomotwin_core.errors import UserError
from tomotwin_core.model import HALF_WINDOW, STRIDE, WINDOW, EmbeddingNetwork, Model, load_model, save_model
from tomotwin_core.model.statistics import suited, with_share
from tomotwin_core.tomogram import ModelTomogram, open_tomogram, resampled_shape, write_mrc

TOLERANCE = 1e-4


@pytest.fixture
def model(network: EmbeddingNetwork) -> Model:
    return Model(network, {}, Path("planted.safetensors"))


def noise(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@torch.inference_mode()
def window_by_window(
    network: EmbeddingNetwork, volume: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The naive way: windows about the voxels 2 i of a volume that is zero beyond its faces."""
    padded = torch.from_numpy(np.pad(volume, WINDOW))
    windows = []
    for point in points:
        z, y, x = (int(STRIDE * p - HALF_WINDOW + WINDOW) for p in point)
        windows.append(padded[None, z : z + WINDOW, y : y + WINDOW, x : x + WINDOW])
    embeddings, particleness = network(torch.stack(windows))
    return embeddings.numpy(), particleness.numpy()


@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        ((40, 41, 43), 48),  # odd, non-cubic, smaller than a tile
        ((40, 41, 43), 7),  # tiles that do not fit
        ((21, 30, 52), 8),  # smaller than the window along two axes
        ((5, 9, 4), 3),  # smaller than the window along all
        ((1, 2, 38), 1),  # a tile of a single embedding
    ],
)
def test_dense_embedding_equals_window_by_window_for_any_tiling_and_shape(
    network: EmbeddingNetwork, shape: tuple[int, int, int], tile: int
) -> None:
    volume = noise(shape)
    embedder = DenseEmbedder(network, tile=tile, precision="float32")
    embeddings, particleness = embedder.whole(volume)
    assert embeddings.shape == (*grid_shape(shape), 32) and particleness.shape == grid_shape(shape)
    assert grid_shape(shape) == tuple(len(range(0, side, 2)) for side in shape)
    grid = np.argwhere(np.ones(grid_shape(shape), bool))
    rim = grid[(grid == 0).any(1) | (grid == np.array(grid_shape(shape)) - 1).any(1)]
    points = np.concatenate([np.random.default_rng(1).permutation(g)[:15] for g in (grid, rim)])
    alone, logits = window_by_window(network, volume, points)
    assert np.abs(embeddings[tuple(points.T)] - alone).max() < TOLERANCE
    assert np.abs(particleness[tuple(points.T)] - logits).max() < TOLERANCE
    assert len(list(embedder.tiles(volume))) == embedder.n_tiles(shape)


def test_a_tomogram_is_seen_with_its_own_statistics_whatever_the_tiling(tmp_path: Path) -> None:
    network = tiny_network(own_statistics=0.75)
    rng = np.random.default_rng(4)
    smooth = ndimage.gaussian_filter(rng.normal(size=(60, 150, 140)), 1.5).astype(np.float32)
    smooth /= smooth.std()
    whole, _ = DenseEmbedder(network, precision="float32").whole(smooth)
    tiled, _ = DenseEmbedder(network, tile=21, precision="float32").whole(smooth)
    np.testing.assert_allclose(whole, tiled, atol=1e-4)
    # Twice the same through one embedder, with another tomogram between.
    embedder = DenseEmbedder(network, precision="float32")
    embedder.whole(rng.normal(size=smooth.shape).astype(np.float32))
    np.testing.assert_array_equal(embedder.whole(smooth)[0], whole)
    plain, _ = DenseEmbedder(tiny_network(), precision="float32").whole(smooth)
    assert (plain * whole).sum(-1).mean() < 0.999
    # Nothing to take statistics from: as without.
    empty = np.zeros((40, 60, 60), np.float32)
    np.testing.assert_array_equal(
        DenseEmbedder(network, precision="float32").whole(empty)[0],
        DenseEmbedder(tiny_network(), precision="float32").whole(empty)[0],
    )


@pytest.mark.parametrize("shape", [(20, 30, 40), (64, 160, 160), (200, 512, 512)])
def test_pieces_for_statistics_are_of_all_the_volume_and_read_few_planes(shape: tuple[int, int, int]) -> None:
    class Planes:
        def __init__(self) -> None:
            self.shape, self.read = shape, 0

        def slab(self, z0: int, z1: int) -> np.ndarray:
            self.read += z1 - z0
            return np.broadcast_to(np.linspace(1, 4, shape[2], dtype=np.float32), (z1 - z0, *shape[1:]))

    volume = Planes()
    pieces = list(sampled_pieces(volume))
    assert 3 <= len(pieces) <= 9 and volume.read <= 3 * 52
    seen = np.concatenate([np.unique(p) for p in pieces])
    assert seen.min() == 0 and len(np.unique(seen)) - 1 > 0.85 * shape[2], "margins, and nearly every column"


def test_many_gold_beads_have_no_say_in_a_tomograms_statistics_and_a_few_are_left() -> None:
    plain = np.random.default_rng(2).uniform(0.5, 1.0, (52, 80, 80)).astype(np.float32)

    def with_beads(every: int) -> np.ndarray:
        volume = plain.copy()
        for z, y, x in np.ndindex(52 // every, 80 // every, 80 // every):
            at = tuple(slice(every * i + 2, every * i + 5) for i in (z, y, x))
            volume[at] = 6.0
        return volume

    many, few = with_beads(13), with_beads(40)
    assert all(piece.max() <= 1.0 and (piece > 0).any() for piece in sampled_pieces(many))
    assert all(piece.max() == 6.0 for piece in sampled_pieces(few))


def test_bfloat16_gives_nearly_the_same_and_auto_takes_it_where_it_is_fast(tmp_path: Path) -> None:
    model, volume = load_model("released"), noise((34, 38, 40))
    (exact, logits), (rounded, rounded_logits) = (
        DenseEmbedder(model.network, precision=precision).whole(volume) for precision in ("float32", "bfloat16")
    )
    assert (exact * rounded).sum(-1).min() > 0.999 and (exact != rounded).any()
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=-1), 1.0, atol=1e-5)
    # Logits go to forty and more: what matters is an error beside their spread.
    np.testing.assert_allclose(rounded_logits, logits, atol=0.1 * logits.std())
    chosen = chosen_precision("auto", torch.device("cpu"))
    assert chosen in ("float32", "bfloat16") and chosen_precision("auto", torch.device("cuda")) == "float32"
    write_mrc(tmp_path / "tomo.mrc", volume, 10.0)
    field = embed_to_disk(open_tomogram(tmp_path / "tomo.mrc"), model, tmp_path / "tomo.zarr")
    assert field.attributes["precision"] == chosen


def test_tiles_of_a_tomogram_read_slab_by_slab_equal_the_volume_in_memory(
    tmp_path: Path, network: EmbeddingNetwork
) -> None:
    write_mrc(tmp_path / "tomo.mrc", noise((30, 36, 33)) + 50, 10.0)
    seen = ModelTomogram(open_tomogram(tmp_path / "tomo.mrc"))
    on_demand = DenseEmbedder(network, tile=6, precision="float32").whole(seen)
    at_once = DenseEmbedder(network, tile=48, precision="float32").whole(seen.slab(0, 30))
    for a, b in zip(on_demand, at_once, strict=True):
        assert np.abs(a - b).max() < TOLERANCE


@pytest.mark.parametrize("voxel_size_A", [8.0, 10.0, 13.3])
def test_a_field_on_disk_holds_the_embeddings_and_says_what_made_them(
    tmp_path: Path, model: Model, voxel_size_A: float
) -> None:
    shape = (26, 31, 28)
    write_mrc(tmp_path / "tomo.mrc", noise(shape), voxel_size_A)
    source = open_tomogram(tmp_path / "tomo.mrc")
    field = embed_to_disk(source, model, tmp_path / "emb" / "tomo.zarr", tile=8, precision="float32")
    at_model = resampled_shape(shape, voxel_size_A, 10.0)
    assert field.shape == grid_shape(at_model)
    assert (field.tomogram, field.tomogram_shape, field.model_hash, field.spacing_A) == (
        "tomo",
        shape,
        model.hash,
        20.0,
    )
    assert field.voxel_size_A == pytest.approx(voxel_size_A)
    assert field.attributes["contrast"] == "dark" and field.attributes["stride"] == 2
    assert field.attributes["software"].startswith("tomotwin") and "torch" in field.attributes["libraries"]
    expected, logits = DenseEmbedder(model.network, precision="float32").whole(ModelTomogram(source))
    np.testing.assert_allclose(field.embeddings(0, field.shape[0]), expected, atol=1e-3)
    np.testing.assert_allclose(field.particleness(1, 3), logits[1:3], atol=1e-2)
    assert field.embeddings(0, 1).dtype == np.float32
    assert [p.name for p in (tmp_path / "emb").iterdir()] == ["tomo.zarr"]
    # A place of the original tomogram is looked up at its nearest embedding.
    k, j, i = 3, 4, 2
    place = np.array([[i, j, k]]) * 20.0 / voxel_size_A + 0.4
    np.testing.assert_allclose(field.at(place)[0], expected[k, j, i], atol=1e-3)


def test_a_field_tells_an_unusual_tomogram_and_only_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = noise((60, 80, 80))
    for name, volume in (("usual", usual), ("coarse", ndimage.gaussian_filter(usual, 2.5))):
        write_mrc(tmp_path / f"{name}.mrc", volume, 10.0)
    files = [tmp_path / "usual.mrc", tmp_path / "coarse.mrc"]
    pieces = sampled_pieces(ModelTomogram(open_tomogram(files[0])))
    knowing = with_share(suited(tiny_network(own_statistics=1.0), pieces).network, 0.5, 0.025)
    save_model(tmp_path / "model.safetensors", knowing, {})
    assert tomotwin(["embed", *map(str, files), "--out", str(tmp_path), "--model", str(tmp_path / "model.safetensors")]) == 0
    told = capsys.readouterr().out
    assert "coarse is unlike most of what the network was trained on" in told and "usual is" not in told
    assert not open_field(tmp_path / "usual.zarr").unusual
    share = open_field(tmp_path / "coarse.zarr").attributes["statistics_share"]
    assert 0.1 < share <= 0.5 and f"by {share:.0%}" in told
    assert tomotwin(["info", str(tmp_path / "coarse.zarr")]) == 0
    assert "unlike" in capsys.readouterr().out


def test_a_dark_tomogram_is_embedded_like_its_bright_negative(tmp_path: Path, model: Model) -> None:
    volume = noise((20, 22, 24))
    write_mrc(tmp_path / "dark.mrc", 5 - volume, 10.0)
    write_mrc(tmp_path / "bright.mrc", volume, 10.0)
    cases: list[tuple[str, str, Literal["dark", "bright"]]]
    cases = [("dark", "a", "dark"), ("bright", "b", "bright"), ("bright", "c", "dark")]
    dark, bright, wrong = (
        embed_to_disk(open_tomogram(tmp_path / f"{file}.mrc"), model, tmp_path / f"{out}.zarr", contrast, precision="float32")
        for file, out, contrast in cases
    )
    np.testing.assert_allclose(dark.embeddings(0, 10), bright.embeddings(0, 10), atol=2e-3)
    assert np.abs(dark.embeddings(0, 10) - wrong.embeddings(0, 10)).max() > 0.05


class Counting(DenseEmbedder):
    """Counts the tiles embedded, and fails at one of them if asked."""

    count = 0
    fails_at = 10**9

    def embed(self, piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        Counting.count += 1
        if Counting.count == Counting.fails_at:
            raise KeyboardInterrupt
        return super().embed(piece)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    monkeypatch.setattr("tomotwin_core.embedding.field.DenseEmbedder", Counting)
    monkeypatch.setattr(Counting, "count", 0)
    monkeypatch.setattr(Counting, "fails_at", 10**9)
    return Counting


def test_what_is_embedded_already_is_left_alone_and_what_has_changed_is_not(
    tmp_path: Path, model: Model, counting: type[Counting]
) -> None:
    path, out = tmp_path / "tomo.mrc", tmp_path / "tomo.zarr"
    write_mrc(path, noise((20, 20, 20)), 10.0)
    embed_to_disk(open_tomogram(path), model, out)
    assert counting.count == 1
    embed_to_disk(open_tomogram(path), model, out)
    assert counting.count == 1, "nothing to do"
    embed_to_disk(open_tomogram(path), model, out, contrast="bright")
    assert counting.count == 2
    embed_to_disk(open_tomogram(path, 12.0), model, out, contrast="bright")
    assert counting.count == 3 and open_field(out).voxel_size_A == 12.0


def test_an_interrupted_embedding_leaves_nothing_behind_and_an_old_one_as_it_was(
    tmp_path: Path, model: Model, counting: type[Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "tomo.mrc", tmp_path / "emb" / "tomo.zarr"
    write_mrc(path, noise((20, 20, 20)), 10.0)
    monkeypatch.setattr(counting, "fails_at", 3)
    with pytest.raises(KeyboardInterrupt):
        embed_to_disk(open_tomogram(path), model, out, tile=5)
    assert not out.parent.exists(), "nor the folder that was made for it"
    field = embed_to_disk(open_tomogram(path), model, out, tile=5)
    before = field.embeddings(0, 10)
    monkeypatch.setattr(counting, "fails_at", counting.count + 3)
    with pytest.raises(KeyboardInterrupt):
        embed_to_disk(open_tomogram(path), model, out, contrast="bright", tile=5)
    assert [p.name for p in out.parent.iterdir()] == ["tomo.zarr"]
    assert np.array_equal(open_field(out).embeddings(0, 10), before)


def test_no_stage_asks_for_more_planes_than_a_tile_and_its_halo(network: EmbeddingNetwork) -> None:
    class Watched:
        shape = (90, 12, 12)
        voxel_size_A = 10.0
        most = 0

        def slab(self, z0: int, z1: int) -> np.ndarray:
            assert 0 <= z0 < z1 <= 90
            Watched.most = max(Watched.most, z1 - z0)
            return np.zeros((z1 - z0, 12, 12), np.float32)

    tiles: list[Tile] = list(DenseEmbedder(network, tile=10).tiles(Watched()))
    assert sum(e.shape[0] for _, e, _ in tiles) == 45
    assert Watched.most <= 2 * 10 + 2 * HALF_WINDOW


def test_slabs_with_a_halo_cover_the_field_once(make_field: FieldMaker) -> None:
    field = make_field(np.zeros((23, 4, 4, 32), np.float32))
    slabs = list(field.slabs(8, halo=2))
    assert [(z0, z1) for z0, z1, _, _ in slabs] == [(0, 8), (8, 16), (16, 23)]
    assert [(low, high) for _, _, low, high in slabs] == [(0, 10), (6, 18), (14, 23)]


def test_what_is_no_embedding_and_a_device_that_is_not_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.zarr").write_text("text")
    for name in ("missing.zarr", "folder", "file.zarr"):
        with pytest.raises(UserError, match=name):
            open_field(tmp_path / name)
    for device in ("cuda:99", "abacus"):
        with pytest.raises(UserError, match=f"device {device}: not available"):
            pick_device(device)
    assert pick_device("cpu").type == "cpu"
