"""Example embeddings of any origin become targets; simulated strangers calibrate their scores."""

import gzip
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import FieldMaker, tiny_network
from test_picking import embeddings_with, unit

from tomotwin_core.cli.main import main
from tomotwin_core.coordinates import Coordinates
from tomotwin_core.embedding import DenseEmbedder
from tomotwin_core.errors import UserError
from tomotwin_core.model import Model, save_model
from tomotwin_core.picking import LocationSettings, ReferenceSet, Target, load_references, locate
from tomotwin_core.picking.examples import Examples, Strangers, centred, level, references_from_examples
from tomotwin_core.picking.from_positions import references_from_positions
from tomotwin_core.picking.from_subtomograms import examples_of_subtomograms
from tomotwin_core.picking.references import Space
from tomotwin_core.picking.self_teaching import self_taught
from tomotwin_core.picking.simulated import Seen
from tomotwin_core.simulation.experiment import SimulatedTomogram
from tomotwin_core.simulation.sample import Crowding
from tomotwin_core.structures import load_density, sources
from tomotwin_core.tomogram import normalise_local, open_tomogram, write_mrc

GRID = (20, 40, 40)


def simulated(species: dict[str, int], copies: int, seed: int) -> Seen:
    """A tomogram as `simulated_world` gives it, of planted molecules whose copies scatter about their direction."""
    rng = np.random.default_rng(seed)
    spots = [(z, y, x) for z in (5, 14) for y in range(4, 40, 8) for x in range(4, 40, 8)]
    chosen = rng.permutation(len(spots))[: copies * len(species)]
    names = [name for name in species for _ in range(copies)]
    planted, xyz = [], []
    for name, spot in zip(names, chosen, strict=True):
        copy = unit(species[name]) + rng.normal(0, 0.07, 32)
        planted.append((spots[spot], copy / np.linalg.norm(copy), 1.0))
        xyz.append([2.0 * c for c in spots[spot][::-1]])
    field = embeddings_with(GRID, planted, seed)
    truth = Coordinates.from_arrays(xyz, 10.0, f"s{seed}", (40, 80, 80), names, diameter_A=100.0)
    at = field[tuple(np.round(np.array(xyz)[:, ::-1] / 2).astype(int).T)]
    tomogram = SimulatedTomogram(np.zeros((40, 80, 80), np.float32), truth, Crowding(0.1, 1.0, np.zeros(len(names))))
    return Seen(tomogram, field, at, truth.label, field[::5, ::5, ::5].reshape(-1, 32))


STRANGERS = Strangers([simulated({f"m{i}": 20 + i for i in range(5)}, 6, s) for s in range(3)])


def examples(count: int, seed: int = 9) -> Examples:
    rng = np.random.default_rng(seed)
    copies = unit(1) + rng.normal(0, 0.07, (count, 32))
    return Examples("target", copies / np.linalg.norm(copies, axis=1, keepdims=True), 100.0, "test")


@pytest.mark.parametrize("count", [2, 8])
def test_scores_of_examples_are_calibrated_on_simulated_strangers(make_field: FieldMaker, count: int) -> None:
    made = references_from_examples([examples(count)], "hash", strangers=STRANGERS)
    assert made.targets[0].calibration is not None
    right = simulated({"target": 1, "m0": 20, "m3": 23}, 12, 77)
    peaks = locate(make_field(right.field), made, LocationSettings(min_score=-1.0))
    truth = right.tomogram.truth.xyz[right.tomogram.truth.label == "target"]
    nearest = np.linalg.norm(peaks.xyz[:, None] - truth[None], axis=-1).min(1)
    assert peaks.fdr is not None
    sure = peaks.fdr <= 0.2
    assert sure.sum() >= 10 and (nearest[sure] < 3).mean() > 0.75
    assert (nearest[peaks.fdr > 0.9] < 3).mean() < 0.1


def test_examples_picked_off_centre_are_moved_to_where_they_agree(make_field: FieldMaker) -> None:
    planted = simulated({"target": 1, "m0": 20, "m1": 21}, 8, 41)
    field, truth = make_field(planted.field), planted.tomogram.truth
    exact = truth.select(truth.label == "target")
    moves = 2.0 * np.eye(3)[np.arange(len(exact)) % 3] * np.random.default_rng(2).choice([-1, 1], (len(exact), 1))
    off = replace(exact, xyz=exact.xyz + moves)
    centre = unit(1)
    alike = []
    for table in (exact, off):
        made = references_from_positions([(field, table)], prototypes=1)
        nearest = made.space.transform(field.at(table.xyz).mean(0, keepdims=True))[0]
        alike.append(
            [float(p @ made.space.transform(centre[None])[0]) for p in (nearest, made.targets[0].prototypes[0])]
        )
    (_, of_exact), (of_nearest, of_off) = alike
    assert of_off > of_nearest + 0.05 and of_off > of_exact - 0.02


def test_the_level_of_examples_is_that_of_their_agreement() -> None:
    tight, loose = (
        np.stack([unit(1) + s * v for v in np.random.default_rng(0).normal(size=(5, 32))]) for s in (0.03, 0.1)
    )
    tight, loose = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (tight, loose))
    levels = [level(v, v[:, None]) for v in (tight, loose)]
    assert levels[0] > levels[1] + 0.5
    assert level(tight[:1], tight[:1, None]) == 0.0
    # Each at its best place, as a peak is.
    assert level(loose, np.stack([loose, tight], axis=1)) > levels[1]
    one_bad = np.concatenate([tight, unit(7)[None]])
    np.testing.assert_array_equal(
        centred(one_bad, np.stack([tight[[0, 0, 0, 0, 0, 0]], one_bad], 1), np.zeros(2))[-1], tight[0]
    )


def test_a_position_that_is_listed_twice_counts_once(make_field: FieldMaker) -> None:
    seen = simulated({"target": 1}, 12, 55)
    field = make_field(seen.field)
    xyz = seen.tomogram.truth.xyz[:3]

    def made(rows: list[int]) -> Target:
        table = Coordinates.from_arrays(
            xyz[rows], field.voxel_size_A, field.tomogram, field.tomogram_shape, diameter_A=100.0
        )
        return references_from_positions([(field, table)], "target", strangers=STRANGERS).targets[0]

    for once, repeated in ((made([0, 1, 2]), made([0, 1, 1, 2, 0])), (made([0]), made([0, 0]))):
        np.testing.assert_array_equal(once.prototypes, repeated.prototypes)
        assert once.calibration is not None and repeated.calibration is not None
        np.testing.assert_array_equal(once.calibration.right, repeated.calibration.right)
        assert repeated.calibration.right.sum() > 0 and repeated.origin == once.origin
    found = locate(field, ReferenceSet((made([0, 0]),), "hash"), LocationSettings(min_score=0.2))
    assert len(found) and found.fdr is not None and np.isfinite(found.fdr).all()


def test_without_simulation_nothing_is_calibrated_and_the_space_is_the_tomograms() -> None:
    everything = np.random.default_rng(0).normal(size=(500, 32)).astype(np.float32) + 3
    made = references_from_examples([examples(4)], "hash", everything)
    assert made.targets[0].calibration is None
    np.testing.assert_allclose(made.space.centre, everything.mean(0), atol=1e-5)
    assert len(made.background) == 8
    given = Space.plain()
    assert references_from_examples([examples(4)], "hash", everything, given).space is given


def test_a_library_molecule_that_may_be_the_target_is_not_counted_as_wrong() -> None:
    with_target = [simulated({"m0": 20, "m1": 21, "the same": 1}, 6, s) for s in range(3)]
    made = references_from_examples([examples(6)], "hash", strangers=Strangers(with_target)).targets[0].calibration
    without = references_from_examples([examples(6)], "hash", strangers=STRANGERS).targets[0].calibration
    assert made is not None and without is not None
    high = slice(300, None)  # Fisher's z above 1.5: similarities above 0.9
    assert made.wrong[high].sum() < 0.02 * made.wrong.sum() and without.wrong[high].sum() < 0.02 * without.wrong.sum()


def test_confident_picks_are_taken_in(make_field: FieldMaker) -> None:
    made = references_from_examples([examples(2)], "hash", strangers=STRANGERS)
    field = make_field(simulated({"target": 1}, 12, 55).field)
    taught = self_taught(made, [field])
    centre = made.space.transform(unit(1)[None])[0]
    before, after = (float((r.targets[0].prototypes @ centre).max()) for r in (made, taught))
    assert after > before + 0.01 and after > 0.98
    bare = ReferenceSet((Target("x", unit(3)[None], 100.0),), "hash")
    assert self_taught(bare, [field]).targets[0] is bare.targets[0], "without calibrated scores there is nothing sure"


def write_box(path: Path, volume: np.ndarray, voxel_A: float) -> None:
    write_mrc(path, volume.astype(np.float32), voxel_A)


def test_a_subtomogram_is_embedded_as_its_place_in_the_tomogram(tmp_path: Path) -> None:
    network = tiny_network()
    tomogram = np.random.default_rng(3).normal(size=(90, 90, 90)).astype(np.float32)
    dense, _ = DenseEmbedder(network, "cpu").whole(normalise_local(-tomogram))
    write_box(tmp_path / "boxes" / "a.mrc", tomogram[4:80, 6:82, 2:78], 10.0)  # box of 76, middle voxel 38
    model = Model(network, {}, Path("x"))
    found = examples_of_subtomograms("a", tmp_path / "boxes", model, 120.0)
    assert found.embeddings.shape == (1, 32) and found.diameter_A == 120.0
    assert float(found.embeddings[0] @ dense[21, 22, 20]) > 0.999
    write_box(tmp_path / "bright.mrc", -tomogram[4:80, 6:82, 2:78], 10.0)
    bright = examples_of_subtomograms("a", tmp_path / "bright.mrc", model, 120.0, contrast="bright")
    np.testing.assert_allclose(bright.embeddings, found.embeddings, atol=1e-5)


def test_subtomograms_that_cannot_serve_are_told(tmp_path: Path) -> None:
    model = Model(tiny_network(), {}, Path("x"))
    (tmp_path / "empty").mkdir()
    write_box(tmp_path / "small.mrc", np.random.default_rng(0).normal(size=(10, 10, 10)), 10.0)
    write_box(tmp_path / "constant.mrc", np.ones((40, 40, 40)), 10.0)
    for source, diameter, words in (
        ("small.mrc", 100.0, "too small"), ("constant.mrc", 100.0, "constant"), ("empty", 100.0, "no subtomogram"), ("small.mrc", None, "--diameter"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            examples_of_subtomograms("a", tmp_path / source, model, diameter)


def test_the_command_takes_subtomograms(tmp_path: Path) -> None:
    save_model(tmp_path / "tiny.safetensors", tiny_network(), {})
    write_box(tmp_path / "box.mrc", np.random.default_rng(0).normal(size=(40, 40, 40)), 10.0)
    command = ["reference", f"p=subtomograms:{tmp_path / 'box.mrc'}", "--out", str(tmp_path / "refs.safetensors")]
    command += ["--model", str(tmp_path / "tiny.safetensors"), "--no-simulation"]
    assert main(command) == 2, "no diameter"
    assert main([*command, "--diameter", "120"]) == 0
    made = load_references(tmp_path / "refs.safetensors")
    assert made.names == ["p"] and made.targets[0].diameter_A == 120.0 and made.targets[0].origin == "1 subtomograms"


def test_an_emdb_map_is_fetched_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    z, y, x = np.indices((40, 40, 40)) - 20
    write_mrc(tmp_path / "ball.mrc", np.exp(-(z**2 + y**2 + x**2) / 60).astype(np.float32), 4.0)
    asked: list[str] = []

    def reply(url: str, timeout: float) -> Any:
        asked.append(url)
        return io.BytesIO(gzip.compress((tmp_path / "ball.mrc").read_bytes()))

    monkeypatch.setattr(sources.urllib.request, "urlopen", reply)
    density = load_density("emdb:EMD-2660")
    assert asked == ["https://ftp.ebi.ac.uk/pub/databases/emdb/structures/EMD-2660/map/emd_2660.map.gz"]
    assert density.mass_kDa == pytest.approx(load_density(str(tmp_path / "ball.mrc")).mass_kDa, rel=1e-4)
    assert open_tomogram(tmp_path / "ball.mrc").shape == (40, 40, 40)
    with pytest.raises(UserError, match="not an EMDB id"):
        load_density("emdb:x/../y")
