"""One network, two forms, one answer; and a model file that comes back as it was."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import tiny_network
from safetensors.torch import save_file
from scipy import ndimage

from tomotwin_core.errors import UserError
from tomotwin_core.model import (
    EMBEDDING_SIZE,
    HALF_WINDOW,
    STRIDE,
    WINDOW,
    EmbeddingNetwork,
    NetworkSettings,
    load_model,
    save_model,
)
from tomotwin_core.model.checkpoint import RELEASED_MODEL, weights_hash
from tomotwin_core.model.network import dense_shape, folded, split_output
from tomotwin_core.model.statistics import distance, share_of, suited, with_share
from tomotwin_core.model.widening import between, settings_for_start, widened

TOLERANCE = 1e-4
# Odd, even, non-cubic, a single window, one embedding along an axis and several along another.
SHAPES = [(37, 37, 37), (38, 41, 45), (37, 52, 39), (44, 37, 61)]


def random_volume(shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(seed))


def windows_at(volume: torch.Tensor, corners: np.ndarray) -> torch.Tensor:
    """Windows (n, 1, 37, 37, 37) with their first voxel at corners (n, 3) z, y, x."""
    return torch.stack([volume[0, :, z : z + WINDOW, y : y + WINDOW, x : x + WINDOW] for z, y, x in corners.tolist()])


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_the_dense_form_equals_the_window_form_at_every_window(
    network: EmbeddingNetwork, shape: tuple[int, int, int]
) -> None:
    volume = random_volume(shape)
    dense, particleness = split_output(network.dense(volume), dim=0)
    assert tuple(dense.shape) == (EMBEDDING_SIZE, *dense_shape(shape))
    grid = np.stack(np.meshgrid(*map(np.arange, dense_shape(shape)), indexing="ij")).reshape(3, -1).T
    chosen = np.random.default_rng(0).permutation(grid)[:40]
    embeddings, logits = network(windows_at(volume, STRIDE * chosen))
    at = tuple(torch.from_numpy(chosen.T))
    assert (dense[:, at[0], at[1], at[2]].T - embeddings).abs().max() < TOLERANCE
    assert (particleness[at] - logits).abs().max() < TOLERANCE
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(len(chosen)), atol=1e-5)
    if len(chosen) > 8:
        assert embeddings.std(0).max() > 100 * TOLERANCE, "the network tells windows apart, or the test tells nothing"


@torch.inference_mode()
def test_the_network_at_its_released_size_agrees_with_itself_too() -> None:
    network = tiny_network(1, NetworkSettings().widths, NetworkSettings().head)
    volume = random_volume((39, 40, 41))
    dense = split_output(network.dense(volume), dim=0)[0]
    for corner in ([0, 0, 0], [1, 1, 2]):
        alone = network(windows_at(volume, STRIDE * np.array([corner])))[0][0]
        z, y, x = corner
        assert (dense[:, z, y, x] - alone).abs().max() < TOLERANCE
    assert network.n_parameters == sum(p.numel() for p in network.parameters()) > 500_000


@torch.inference_mode()
def test_folding_the_batch_norms_changes_nothing(network: EmbeddingNetwork) -> None:
    volume = random_volume((41, 38, 43))
    fast = folded(network)
    assert (fast.dense(volume) - network.dense(volume)).abs().max() < TOLERANCE
    assert not any(isinstance(m, torch.nn.BatchNorm3d) for m in fast.modules())
    assert any(isinstance(m, torch.nn.BatchNorm3d) for m in network.modules()), "the original is left as it was"


@torch.inference_mode()
def test_windows_gathered_from_the_shared_trunk_equal_the_window_form(network: EmbeddingNetwork) -> None:
    volume = random_volume((47, 42, 51))
    corners = np.random.default_rng(1).integers(0, dense_shape(volume.shape[2:]), (20, 3))
    pooled = network.dense_pooled(volume)
    shared = network.embed_pooled(network.windows_of(pooled, torch.from_numpy(corners)))
    alone = network(windows_at(volume, STRIDE * corners))
    for a, b in zip(shared, alone, strict=True):
        assert (a - b).abs().max() < TOLERANCE


@torch.inference_mode()
def test_the_receptive_field_is_the_window_and_no_voxel_more(network: EmbeddingNetwork) -> None:
    network = copy.deepcopy(network).double()
    for parameter in network.parameters():
        parameter.abs_()  # so that no maximum hides a bright voxel
    side = WINDOW + 4
    volume = random_volume((side, side, side)).double()
    grid = 1  # embedding i looks at voxels 2 i to 2 i + 36
    first, last = STRIDE * grid, STRIDE * grid + WINDOW - 1

    def changed(voxel: tuple[int, int, int]) -> float:
        other = volume.clone()
        other[(0, 0, *voxel)] = 1e7
        span = slice(first, last + 1)
        both = [network.dense(v[:, :, span, span, span]) for v in (volume, other)]
        wide = [network.dense(v)[:, grid, grid, grid] for v in (volume, other)]
        assert torch.allclose(wide[0], both[0].flatten(), atol=TOLERANCE)
        return float((wide[1] - wide[0]).abs().max())

    for corner in np.ndindex(2, 2, 2):
        inside = tuple(last if c else first for c in corner)
        assert changed((inside[0], inside[1], inside[2])) > 0.1, f"corner {inside} is not seen"
    for axis in range(3):
        for outside in (first - 1, last + 1):
            voxel = [first + HALF_WINDOW] * 3
            voxel[axis] = outside
            assert changed((voxel[0], voxel[1], voxel[2])) == 0.0


def test_a_window_that_is_smaller_than_the_network_needs_is_not_embedded(network: EmbeddingNetwork) -> None:
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 1, 36, 36, 36))


@torch.inference_mode()
def test_a_model_file_comes_back_with_its_weights_its_card_and_its_hash(
    tmp_path: Path, network: EmbeddingNetwork
) -> None:
    path = tmp_path / "planted.safetensors"
    save_model(path, network, {"figures": {"median F1": 0.5}})
    model = load_model(path)
    volume = random_volume((37, 39, 41))
    assert torch.equal(model.network.dense(volume), network.dense(volume))
    assert model.network.settings == network.settings and not model.network.training
    assert model.hash == weights_hash(network) == model.card["hash"] and len(model.hash) == 16
    assert model.card["figures"] == {"median F1": 0.5}
    assert json.loads(path.with_suffix(".json").read_text()) == model.card
    assert sorted(p.name for p in tmp_path.iterdir()) == ["planted.json", "planted.safetensors"]
    assert weights_hash(tiny_network(7)) != model.hash


def test_the_released_model_opens_by_its_name_and_is_the_default() -> None:
    model = load_model("released")
    assert model.path == RELEASED_MODEL and load_model().hash == model.hash
    assert model.network.settings.embedding_size == EMBEDDING_SIZE
    assert model.card["hash"] == model.hash


@torch.no_grad()
def test_a_suited_network_normalises_by_the_pieces_and_for_the_rest_as_before(network: EmbeddingNetwork) -> None:
    pieces = [np.random.default_rng(i).normal(0.5 * i, 1 + i, (30, 32, 34)).astype(np.float32) for i in range(2)]
    before = copy.deepcopy(network.state_dict())

    def suited_with(share: float, *of: np.ndarray) -> EmbeddingNetwork:
        planted = tiny_network(own_statistics=share)
        planted.load_state_dict(before)
        return suited(planted.train(), of).network

    # All of its own, and one piece: what training sees of that piece (whose variance counts one value more).
    own = suited_with(1.0, pieces[0])
    seen = copy.deepcopy(network).train().trunk(torch.from_numpy(pieces[0])[None, None])
    torch.testing.assert_close(own.trunk(torch.from_numpy(pieces[0])[None, None]), seen, rtol=0, atol=0.01)
    assert not own.training and own.late[0][1].running_mean.equal(network.late[0][1].running_mean)
    # Of several pieces their mean; of a share so much.
    first, second = (suited_with(1.0, piece).trunk[0][1].running_var for piece in pieces)
    both = suited_with(1.0, *pieces).trunk[0][1].running_var
    torch.testing.assert_close(both, (first + second) / 2)
    mixed = suited_with(0.25, *pieces).trunk[0][1].running_var
    torch.testing.assert_close(mixed, 0.25 * both + 0.75 * before["trunk.0.1.running_var"])
    # Without pieces, and the one that it was made of, as before.
    assert all(v.equal(before[k]) for k, v in suited_with(1.0).state_dict().items() if "num_batches" not in k)
    assert all(v.equal(before[k]) for k, v in network.state_dict().items())


def test_a_tomograms_own_statistics_count_the_more_the_farther_they_lie_from_the_kept_ones() -> None:
    network = tiny_network(own_statistics=0.5, usual_within=0.025)
    for far, share in ((0.0, 0.0), (0.025, 0.0), (0.0625, 0.25), (0.1, 0.5), (3.0, 0.5)):
        assert share_of(network, far) == pytest.approx(share)
    assert share_of(tiny_network(own_statistics=0.5), 0.001) == 0.5

    def statistics(of: EmbeddingNetwork) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(block[1].running_mean, block[1].running_var) for block in of.trunk]  # type: ignore[index, misc]

    usual = random_volume((53, 53, 53))[0, 0].numpy()  # like what the planted network has seen
    coarse = ndimage.gaussian_filter(2 * usual, 1.5)
    kept, own = statistics(network), statistics(suited(with_share(network, 1.0, 0.0), [coarse]).network)
    assert distance(kept, kept) == 0.0 and distance(own, kept) > 0.1
    found = suited(network, [coarse])
    assert found.share == 0.5 and found.distance == pytest.approx(distance(own, kept))
    for suit, seen, before in zip(statistics(found.network), own, kept, strict=True):
        for halfway, theirs, ours in zip(suit, seen, before, strict=True):
            torch.testing.assert_close(halfway, (theirs + ours) / 2)
    unchanged = statistics(suited(network, [usual]).network)
    assert all(torch.equal(a, b) for one, other in zip(unchanged, kept, strict=True) for a, b in zip(one, other, strict=True))


def test_the_distance_of_statistics_is_the_divergence_of_normal_distributions() -> None:
    own = [(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0]))]
    kept = [(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0]))]
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(1.0, 2**0.5), normal(0.0, 1.0)) / 2  # the other channel is alike
    assert distance(own, kept) == pytest.approx(float(expected), rel=1e-4)


def test_models_from_before_own_statistics_keep_their_names_and_do_without(tmp_path: Path) -> None:
    without, with_own = tiny_network(), tiny_network(own_statistics=0.5)
    assert len({weights_hash(n) for n in (without, with_own, tiny_network(own_statistics=0.5, usual_within=0.025))}) == 3
    save_model(tmp_path / "new.safetensors", with_own, {})
    assert load_model(tmp_path / "new.safetensors").network.settings.own_statistics == 0.5
    settings = without.settings.as_dict()
    del settings["own_statistics"], settings["usual_within"]
    card = {"format": "tomotwin model 1", "network": settings}
    save_file(without.state_dict(), tmp_path / "old.safetensors", {"card": json.dumps(card)})
    old = load_model(tmp_path / "old.safetensors")
    assert old.network.settings.own_statistics == 0.0 and old.hash == weights_hash(without)


def test_what_is_no_model_file_is_told_in_one_sentence(tmp_path: Path, network: EmbeddingNetwork) -> None:
    (tmp_path / "text.safetensors").write_text("no weights here")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    save_model(tmp_path / "model.safetensors", network, {})
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    tensors = {"x": torch.zeros(3)}
    card = {"format": "tomotwin model 1", "network": network.settings.as_dict()}
    for name, metadata in {
        "foreign": None,
        "no_json": {"card": "{"},
        "other_card": {"card": "[]"},
        "other_format": {"card": '{"format": "tomotwin model 9"}'},
        "other_tensors": {"card": json.dumps(card)},
        "other_settings": {"card": json.dumps({**card, "network": {"widths": [1, 2], "depth": 3}})},
    }.items():
        save_file(tensors, str(tmp_path / f"{name}.safetensors"), metadata=metadata)
    for name in (
        "missing", "text", "empty", "cut", "foreign", "no_json", "other_card", "other_format", "other_tensors",
        "other_settings",
    ):  # fmt: skip
        with pytest.raises(UserError) as problem:
            load_model(tmp_path / f"{name}.safetensors")
        assert f"{name}.safetensors" in str(problem.value) and "\n" not in str(problem.value)


def test_a_widened_network_computes_the_same_and_learns_with_all_of_itself() -> None:
    narrow = tiny_network(3, (3, 4, 5, 6, 7), 8)
    wide = widened(narrow, NetworkSettings((5, 4, 8, 9, 11), 12), seed=4).eval()
    windows = torch.randn(6, 1, WINDOW, WINDOW, WINDOW, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        for ours, theirs in zip(wide(windows), narrow.eval()(windows), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)  # a wider convolution may add up in another order
    before = copy.deepcopy(wide.state_dict())
    optimizer = torch.optim.SGD(wide.train().parameters(), lr=0.5)
    for _ in range(2):
        embeddings, particleness = wide(windows)
        optimizer.zero_grad()
        ((embeddings[0] - embeddings[1:]) ** 2).sum().add(particleness.sum()).backward()
        optimizer.step()
    for name in ("trunk.0.0.weight", "late.0.0.weight", "late.2.0.weight", "head.0.0.weight"):
        new_channels = slice(-1, None)
        moved = wide.state_dict()[name][new_channels] - before[name][new_channels]
        assert moved.abs().max() > 0, name


def test_a_start_keeps_its_shape_but_where_wider_is_wanted() -> None:
    start = NetworkSettings((3, 4, 5, 6, 7), 8, 16)
    assert settings_for_start(start, NetworkSettings()) == start
    assert settings_for_start(start, NetworkSettings((2, 9, 5, 6, 8), 4)) == NetworkSettings((3, 9, 5, 6, 8), 8, 16)


def test_between_start_and_end_of_a_training_lie_both_ends_and_the_middle() -> None:
    start, end = tiny_network(1, (3, 4, 5, 6, 7), 8), tiny_network(2, (5, 4, 8, 9, 11), 12)
    wide = widened(start, end.settings, seed=4)
    for share, expected in ((0.0, wide), (1.0, end)):
        assert all(torch.equal(a, b) for a, b in zip(between(start, end, share, 4).parameters(), expected.parameters()))
    middle = between(start, end, 0.25, 4)
    for a, b, c in zip(wide.buffers(), end.buffers(), middle.buffers()):
        assert torch.allclose(c.float(), 0.75 * a.float() + 0.25 * b.float(), atol=1e-6) or not a.is_floating_point()
    assert torch.allclose(middle.head[1].weight, 0.75 * wide.head[1].weight + 0.25 * end.head[1].weight, atol=1e-6)
