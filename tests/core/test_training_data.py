"""Tomograms on disk as training data, validation by F1, and `tomotwin train` over both."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from planted import tiny_network
from planted_training import TINY

from tomotwin_core.cli.main import main
from tomotwin_core.coordinates import Coordinates, write_coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.model import load_model
from tomotwin_core.structures import DensityLibrary, density_from_points
from tomotwin_core.toml_settings import read_settings
from tomotwin_core.tomogram import write_mrc
from tomotwin_core.training.batches import PartlyListed
from tomotwin_core.training.log import read_rows
from tomotwin_core.training.settings import DataSettings, TrainingPlan, ValidationSettings, paper_recipe
from tomotwin_core.training.sources import FolderSource, MixedSource, Pair, ahead, listed_tomograms
from tomotwin_core.training.stream import MiniTomogram
from tomotwin_core.training.validation import open_validation, simulate_validation, summary, validate

COUNTS = {"bar": 3, "cube": 9}


def write_tomogram(folder: Path, name: str, seed: int = 0, voxel_size_A: float = 10.0, extra: str = "gold") -> None:
    """NAME.mrc, protein dark, with bars, cubes and something extra at known places, and NAME_truth.star."""
    rng = np.random.default_rng(seed)
    scale = 10.0 / voxel_size_A
    shape = tuple(round(side * scale) for side in (32, 64, 64))
    volume = rng.normal(50, 1, shape)
    names = [n for n, count in {**COUNTS, extra: 2}.items() for _ in range(count)]
    grid = np.array([(x, y) for x in (8, 24, 40, 56) for y in (8, 24, 40, 56)])[: len(names)]
    xyz = np.column_stack([grid, rng.integers(12, 21, len(names))]) * scale
    half = {"bar": (2, 2, 8), "cube": (3, 3, 3), extra: (1, 1, 1)}
    for (x, y, z), species in zip(xyz, names, strict=True):
        dz, dy, dx = (round(h * scale) for h in half[species])
        x, y, z = round(x), round(y), round(z)
        volume[z - dz : z + dz + 1, y - dy : y + dy + 1, max(x - dx, 0) : x + dx + 1] -= 10
    write_mrc(folder / f"{name}.mrc", volume.astype(np.float32), voxel_size_A)
    table = Coordinates.from_arrays(xyz, voxel_size_A, name, shape, label=names, diameter_A=100.0)  # type: ignore[arg-type]
    write_coordinates(folder / f"{name}_truth.star", table)


def source_of(folder: Path, data: DataSettings, seed: int = 0) -> FolderSource:
    return FolderSource(listed_tomograms(data), folder / "cache", seed, (32, 48, 48), data.contrast)


def test_pieces_hold_the_listed_particles_where_they_say_at_any_voxel_size(tmp_path: Path) -> None:
    for name, size in (("fine", 5.0), ("coarse", 14.0)):
        write_tomogram(tmp_path, name, voxel_size_A=size)
    source = source_of(tmp_path, DataSettings(folders=(str(tmp_path),)))
    assert source.species == ["bar", "cube"], "gold is no species"
    seen = []
    for _, pair in zip(range(12), source.pairs(0, 0)):
        for piece in pair:
            assert (
                piece.volume.shape[0] in (31, 32)
                and piece.volume.shape[1:] == (48, 48)
                and piece.volume.dtype == np.float32
            )
            assert not isinstance(piece, PartlyListed)
            seen += list(piece.label)
            at = np.round(piece.xyz).astype(int)
            inside = (at >= 3).all(1) & (at < np.array(piece.volume.shape[::-1]) - 3).all(1) & (piece.label >= 0)
            assert (piece.volume[tuple(at[inside, ::-1].T)] > 1.0).all(), "protein is bright where a particle is"
    assert set(seen) == {-1, 0, 1}


def test_a_rare_species_is_the_middle_of_as_many_pieces_as_a_frequent_one(tmp_path: Path) -> None:
    write_tomogram(tmp_path, "one")
    source = source_of(tmp_path, DataSettings(folders=(str(tmp_path),)))
    chosen = []
    source._piece = lambda species, rng: chosen.append(species)  # type: ignore[assignment, method-assign, func-returns-value]
    for _ in zip(range(200), source.pairs(0, 0)):
        pass
    assert 0.4 < np.mean(chosen) < 0.6
    assert all(a == b for a, b in zip(chosen[::2], chosen[1::2], strict=True)), "both of a pair by the same"


def test_the_same_step_and_rank_give_the_same_pair(tmp_path: Path) -> None:
    write_tomogram(tmp_path, "one")
    source = source_of(tmp_path, DataSettings(folders=(str(tmp_path),)))
    first, second, third = (p for _, p in zip(range(3), source.pairs(5, 0)))
    again = next(source_of(tmp_path, DataSettings(folders=(str(tmp_path),))).pairs(7, 0))
    assert np.array_equal(third[0].volume, again[0].volume) and np.array_equal(third[1].xyz, again[1].xyz)
    assert not np.array_equal(first[0].volume, second[0].volume)
    assert not np.array_equal(next(source.pairs(5, 1))[0].volume, first[0].volume)


def test_a_users_positions_are_partly_listed_unless_he_says_they_are_not(tmp_path: Path) -> None:
    write_tomogram(tmp_path, "one")
    files = {"tomograms": (str(tmp_path / "one.mrc"),), "positions": (str(tmp_path / "one_truth.star"),)}
    for complete in (False, True):
        source = source_of(tmp_path, DataSettings(**files, all_listed=complete))  # type: ignore[arg-type]
        assert isinstance(next(source.pairs(0, 0))[0], PartlyListed) is not complete


def test_positions_without_name_or_diameter_take_the_files_name_and_the_option(tmp_path: Path) -> None:
    write_tomogram(tmp_path, "one")
    (tmp_path / "ribosome.coords").write_text("8 8 15\n24 24 15\n")
    files = {"tomograms": (str(tmp_path / "one.mrc"),), "positions": (str(tmp_path / "ribosome.coords"),)}
    with pytest.raises(UserError, match="--diameter"):
        listed_tomograms(DataSettings(**files))  # type: ignore[arg-type]
    (found,) = listed_tomograms(DataSettings(**files, diameter_A=250.0))  # type: ignore[arg-type]
    assert set(found.listed.label) == {"ribosome"} and (found.listed.diameter_A == 250).all()
    both = {**files, "positions": (*files["positions"], str(tmp_path / "one_truth.star"))}
    (joined,) = listed_tomograms(DataSettings(**both, diameter_A=250.0))  # type: ignore[arg-type]
    assert len(joined.listed) == 2 + sum(COUNTS.values()) + 2, "two files of one tomogram are one list"


class OneLabel:
    """Pairs of one particle with the last of the species' labels."""

    def __init__(self, *species: str) -> None:
        self.species = list(species)

    def pairs(self, step: int, rank: int) -> Iterator[Pair]:
        label = np.array([len(self.species) - 1, -1])
        while True:
            piece = MiniTomogram(np.zeros((1, 1, 1), np.float32), np.zeros((2, 3)), label, np.zeros(2))
            yield piece, piece


def test_mixed_sources_share_the_steps_and_keep_the_names() -> None:
    mixed = MixedSource(OneLabel("a", "b"), OneLabel("c", "b", "a"), 0.25, seed=0)
    assert mixed.species == ["a", "b", "c"]
    labels = [pair[1].label.tolist() for _, pair in zip(range(400), mixed.pairs(0, 0))]
    assert all(label[1] == -1 for label in labels) and {label[0] for label in labels} == {0, 1}
    assert 0.2 < np.mean([label[0] == mixed.species.index("b") for label in labels]) < 0.3


def test_validation_finds_planted_particles_again_and_tells_seen_from_unseen(tmp_path: Path) -> None:
    write_tomogram(tmp_path, "one", extra="ring")
    tomograms = open_validation(tmp_path, tmp_path / "cache")
    rows = validate(tiny_network(), tomograms, ["cube"], examples=4, masses={"cube": 120.0})
    by_name = {r["species"]: r for r in rows}
    assert {n: r["group"] for n, r in by_name.items()} == {"bar": "unseen", "cube": "seen", "ring": "unseen"}
    assert by_name["cube"]["mass_kDa"] == 120.0 and by_name["cube"]["n_true"] == 9
    assert by_name["cube"]["best_f1"] >= 0.6 and by_name["cube"]["f1"] <= by_name["cube"]["best_f1"]
    figures = summary(rows)
    assert figures["median_f1_seen"] == by_name["cube"]["f1"]
    assert figures["mean_best_f1_unseen"] == pytest.approx((by_name["bar"]["best_f1"] + by_name["ring"]["best_f1"]) / 2)
    with pytest.raises(UserError, match="tomotwin simulate"):
        open_validation(tmp_path / "none", tmp_path / "cache")


def test_validation_tomograms_of_seen_and_unseen_species_are_simulated_once(tmp_path: Path) -> None:
    library = DensityLibrary({}, {})
    rng = np.random.default_rng(0)
    for i, split in enumerate(("train", "train", "train", "heldout", "heldout")):
        density = density_from_points(rng.normal(0, (10 + 5 * i, 25, 12), (200, 3)), np.full(200, 1e3 * (i + 1)), 5.0)
        library.add(f"m{i}", density, name=f"{i}", source="a test", licence="none", split=split)
    settings = ValidationSettings(seen=2, unseen=2, shape=(40, 48, 48), copies=2)
    simulate_validation(tmp_path, library, ["m0", "m1", "m2", "m4"], settings)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["seen_01.mrc", "seen_01_truth.star", "unseen_01.mrc", "unseen_01_truth.star"]
    seen, unseen = open_validation(tmp_path, tmp_path / "cache")
    assert len(set(seen.truth.label)) == 2 and set(seen.truth.label) < {"m0", "m1", "m2", "m4"}
    assert set(unseen.truth.label) == {"m3"}, "what was trained on is not unseen, whatever the library calls it"
    assert seen.volume.shape == (40, 48, 48)
    written = [p.stat().st_mtime_ns for p in sorted(tmp_path.glob("*.mrc"))]
    simulate_validation(tmp_path, library, ["m0", "m1", "m2", "m4"], settings)
    assert [p.stat().st_mtime_ns for p in sorted(tmp_path.glob("*.mrc"))] == written


def test_settings_come_from_recipe_file_and_options_in_that_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "paper.toml"
    assert main(["train", "--recipe", "paper", "--write-settings", str(file)]) == 0
    assert read_settings(file, TrainingPlan()) == paper_recipe()
    assert "# of triplet (in cosine)" in file.read_text()
    text = file.read_text().replace("learning_rate = 5.9e-05", "learning_rate = 0.5")
    file.write_text(text)
    both = tmp_path / "both.toml"
    arguments = ["--steps", "7", "--set", "loss.margin=0.25", "--shape", "40", "50", "60"]
    assert main(["train", str(file), "--write-settings", str(both), *arguments]) == 0
    plan = read_settings(both, TrainingPlan())
    assert (plan.training.learning_rate, plan.training.steps, plan.loss.margin) == (0.5, 7, 0.25)
    assert plan.stream.shape == (40, 50, 60) and plan.loss.name == "triplet"
    for wrong, told in (
        (["--steps", "0"], "training.steps = 0: give 1 or more"),
        (["--species", "1"], "at least 2 species"),
        (["--shape", "30", "90", "90"], "40 voxels at least"),
        (["--set", "loss.nme=circle"], "loss.nme is not known"),
        (["--data", str(tmp_path / "none")], "tomotwin simulate"),
        (["--tomograms", "a.mrc"], "give both"),
        ([], "--out"),
    ):
        out = ["--out", str(tmp_path / "out")] if wrong else []
        assert main(["train", *out, *wrong]) == 2, wrong
        assert told in capsys.readouterr().err


def test_train_on_folders_with_validation_goes_on_where_it_stopped(tmp_path: Path) -> None:
    write_tomogram(tmp_path / "data", "one")
    write_tomogram(tmp_path / "held", "two", seed=1, extra="ring")
    settings = tmp_path / "small.toml"
    settings.write_text(
        "[training]\nwarmup = 1\nlog_every = 1\ncheckpoint_every = 2\n[batch]\nanywhere = 8\nbeside = 8\n"
        f"[network]\nwidths = {list(TINY.widths)}\nhead = {TINY.head}\n[stream]\nshape = [40, 40, 40]\n"
        "[validation]\nexamples = 4\n"
    )
    command = ["train", str(settings), "--out", str(tmp_path / "out"), "--data", str(tmp_path / "data")]
    command += ["--validate-every", "2", "--validation-folder", str(tmp_path / "held"), "--device", "cpu"]
    for steps in ("2", "3"):
        assert main([*command, "--steps", steps]) == 0
    assert [r["step"] for r in read_rows(tmp_path / "out" / "log.csv")] == ["1", "2", "3"]
    rows = read_rows(tmp_path / "out" / "validation.csv")
    assert {(r["step"], r["group"], r["species"]) for r in rows} == {
        ("2", "seen", "bar"), ("2", "seen", "cube"), ("2", "unseen", "ring")
    }  # fmt: skip
    card = load_model(tmp_path / "out" / "best.safetensors").card["training"]
    assert card["steps"] == 2 and card["species_trained"] == ["bar", "cube"]
    assert read_settings(tmp_path / "out" / "settings.toml", TrainingPlan()).data.folders == (str(tmp_path / "data"),)


def test_items_made_ahead_are_the_same_in_order_and_an_error_reaches_the_one_who_asks() -> None:
    third = threading.Event()

    def items() -> Iterator[int]:
        for number in range(4):
            if number == 2:
                third.set()
            yield number
        raise UserError("no more")

    source = ahead(items())
    assert next(source) == 0 and next(source) == 1
    assert third.wait(60), "the next one is made while this one is used"
    assert [next(source), next(source)] == [2, 3]
    with pytest.raises(UserError, match="no more"):
        next(source)
