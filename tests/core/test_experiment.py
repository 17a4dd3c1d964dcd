"""Data sets: their files agree with each other, go on after an interruption, and are the same for the same seed."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tomotwin_core.coordinates import read_coordinates
from tomotwin_core.simulation import Acquisition, dataset, experiment
from tomotwin_core.simulation.building import SampleSettings, build_sample
from tomotwin_core.simulation.dataset import simulate_dataset
from tomotwin_core.simulation.delivery import Delivery
from tomotwin_core.simulation.experiment import SimulatedTomogram, legend, species_labels
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.settings import DataSet, Experiment
from tomotwin_core.structures import Density, density_from_points
from tomotwin_core.tomogram import open_tomogram

ALL = DataSet(tilt_series=True, labels=True, noise_free=True, references=True)
SMALL = Experiment(
    {"ball": 3, "pea": 4},
    SampleSettings((16, 40, 40), 10.0, 130.0, {"ball": 3, "pea": 4}),
    Acquisition(tilt_step_deg=20.0, dose_e_per_A2=200.0),
)


def ball(kDa: float, sigma_A: float) -> Density:
    points = np.random.default_rng(1).normal(0, sigma_A, (400, 3))
    return density_from_points(points, np.full(400, kDa * 1000 / 400), 5.0)


BALLS = {"ball": ball(500.0, 20.0), "pea": ball(150.0, 12.0)}


def volume_of(path: Path) -> NDArray[np.float32]:
    source = open_tomogram(path)
    return source.slab(0, source.shape[0])


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    for name, seed in zip(names, (1, 1, 2), strict=True):
        simulate_dataset(tmp_path / name, BALLS, replace(SMALL, dataset=replace(ALL, seed=seed)))
    files = sorted(p.relative_to(tmp_path / "a").as_posix() for p in (tmp_path / "a").rglob("*.*"))
    endings = [".mrc", ".rawtlt", ".st", ".st.mdoc", "_labels.mrc", "_noisefree.mrc", "_truth.star"]
    tomograms = [f"tomo_{n:02d}{ending}" for n in (1, 2) for ending in endings]
    assert files == ["labels.csv", "references/ball.mrc", "references/pea.mrc", "simulation.json", *tomograms]
    for file in files:
        one, same, other = ((tmp_path / name / file).read_bytes() for name in names)
        if file.endswith((".mrc", ".st")):  # the header has the date
            one, same, other = one[1024:], same[1024:], other[1024:]
        if not file.endswith((".star", ".json")):  # these say when they were made
            assert one == same, file
        if file.startswith("tomo") and not file.endswith(".rawtlt"):
            assert one != other, file
    truths = [read_coordinates(tmp_path / name / "tomo_02_truth.star") for name in names]
    assert np.array_equal(truths[0].xyz, truths[1].xyz) and truths[0].tomogram == "tomo_02"
    assert truths[0].xyz.shape != truths[2].xyz.shape or not np.array_equal(truths[0].xyz, truths[2].xyz)


def test_the_extras_do_not_change_the_tomogram_and_parts_make_the_whole(tmp_path: Path) -> None:
    simulate_dataset(tmp_path / "plain", BALLS, SMALL)
    second = replace(SMALL, dataset=replace(ALL, tomograms=1, first=2))
    assert [p.name for p in simulate_dataset(tmp_path / "part", BALLS, second)] == ["tomo_02.mrc"]
    whole, part = (volume_of(tmp_path / folder / "tomo_02.mrc") for folder in ("plain", "part"))
    assert np.array_equal(whole, part)


def test_labels_truth_and_tomograms_agree(tmp_path: Path) -> None:
    sample = replace(SMALL.sample, shape=(24, 64, 64), thickness_A=220.0, gold=2, copies={"ball": 6, "pea": 9})
    fine = replace(SMALL.acquisition, tilt_step_deg=5.0)
    wanted = replace(SMALL, sample=sample, acquisition=fine, dataset=replace(ALL, tomograms=1))
    simulate_dataset(tmp_path, BALLS, wanted)
    with open(tmp_path / "labels.csv", newline="") as file:
        legend = {row["name"]: (int(row["label"]), row["mass_kDa"]) for row in csv.DictReader(file)}
    assert legend["ball"] == (1, "500.0") and legend["pea"][0] == 2 and legend["gold"][1] == ""
    labels, noisy, clean = (volume_of(tmp_path / f"tomo_01{e}.mrc") for e in ("_labels", "", "_noisefree"))
    truth = read_coordinates(tmp_path / "tomo_01_truth.star")
    assert labels.shape == noisy.shape == clean.shape == truth.shape == sample.shape
    assert set(truth.label) == {"ball", "pea"}, "gold is no molecule"
    z, y, x = np.round(truth.xyz.T[::-1]).astype(int)
    assert [legend[name][0] for name in truth.label] == labels[z, y, x].astype(int).tolist()
    assert set(np.unique(labels)) == {0, 1, 2, legend["gold"][0]}
    np.testing.assert_allclose(truth.diameter_A[truth.label == "pea"], BALLS["pea"].diameter_A, rtol=1e-5)
    # The noise is gone and the molecules are where they were.
    inside = labels > 0
    assert all(v[inside].mean() < v[~inside].mean() - 2 * v.std() for v in (noisy, clean)), "protein is dark"
    grain = [(v - ndimage.gaussian_filter(v, 1.0))[~inside].std() for v in (noisy, clean)]
    assert grain[1] < 0.5 * grain[0]
    smooth = [ndimage.gaussian_filter(v, 2.0).ravel() for v in (noisy, clean)]
    assert np.corrcoef(*smooth)[0, 1] > 0.6


def test_everything_that_a_sample_can_hold_has_a_number() -> None:
    settings = SampleSettings(
        (40, 120, 120), 10.0, 380.0, 2, vesicles=1, membranes=1, actin=1, microtubules=1, gold=1, carbon_A=150.0
    )
    seen: set[str] = set()
    numbers = legend(["ball"])
    for seed in range(4):
        sample = build_sample(settings, Molecules({"ball": BALLS["ball"]}, 10.0), np.random.default_rng(seed))
        labels = species_labels(sample, ["ball"])
        for name in set(sample.structures):
            of_name = np.isin(sample.labels, 1 + np.flatnonzero(np.array(sample.structures) == name))
            assert np.array_equal(labels == numbers[name], of_name)
        assert not (labels[sample.labels == 0]).any()
        seen |= set(sample.structures)
    assert seen == set(numbers), "each of them was drawn in one of the samples"


def test_every_molecule_of_the_truth_has_its_mass(tmp_path: Path) -> None:
    simulate_dataset(tmp_path, BALLS, replace(SMALL, dataset=DataSet(tomograms=1)))
    truth = read_coordinates(tmp_path / "tomo_01_truth.star")
    assert truth.mass_kDa is not None
    np.testing.assert_allclose(truth.mass_kDa, np.where(truth.label == "ball", 500.0, 150.0), rtol=1e-3)


def test_what_is_delivered_at_another_voxel_size_has_its_truth_and_labels_there(tmp_path: Path) -> None:
    delivery = Delivery(binned_to_A=20.0, bits=8, contrast="bright")
    wanted = replace(SMALL, delivery=delivery, dataset=replace(ALL, tomograms=1))
    simulate_dataset(tmp_path / "binned", BALLS, wanted)
    simulate_dataset(tmp_path / "whole", BALLS, replace(wanted, delivery=Delivery()))
    with mrcfile.open(tmp_path / "binned" / "tomo_01.mrc") as mrc:
        assert mrc.data.dtype == np.int8 and float(mrc.voxel_size.x) == 20.0
        shape, bright = mrc.data.shape, mrc.data.astype(float)
    coarse, fine = (read_coordinates(tmp_path / f / "tomo_01_truth.star") for f in ("binned", "whole"))
    assert coarse.shape == shape == (8, 20, 20) and coarse.voxel_size_A == 20.0
    np.testing.assert_allclose(coarse.xyz, fine.xyz / 2, atol=1e-4)
    labels, whole = (volume_of(tmp_path / f / "tomo_01_labels.mrc") for f in ("binned", "whole"))
    assert np.array_equal(labels, whole[::2, ::2, ::2])
    assert bright[labels > 0].mean() > bright[labels == 0].mean()
    series = open_tomogram(tmp_path / "binned" / "tomo_01.st")
    assert series.voxel_size_A == 10.0 and series.shape == (7, 40, 40), "the tilt series is as it was taken"


def test_an_interrupted_data_set_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    stop_at = 2
    original = experiment.simulate_tomogram

    def counted(*arguments: object) -> SimulatedTomogram:
        calls.append(str(arguments[4]))
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset, "simulate_tomogram", counted)
    out = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        simulate_dataset(out, BALLS, SMALL)
    assert sorted(p.name for p in out.iterdir()) == ["tomo_01.mrc", "tomo_01_truth.star"]
    stop_at = 0
    simulate_dataset(out, BALLS, SMALL)
    assert calls == ["tomo_01", "tomo_02", "tomo_02"], "what was complete is kept"
    simulate_dataset(tmp_path / "at_once", BALLS, SMALL)
    for name in ("tomo_01.mrc", "tomo_02.mrc"):
        assert np.array_equal(volume_of(out / name), volume_of(tmp_path / "at_once" / name))
    calls.clear()
    simulate_dataset(out, BALLS, SMALL)
    assert calls == [] and len(json.loads((out / "simulation.json").read_text())["tomograms"]["tomo_01"]) > 3
    simulate_dataset(out, BALLS, replace(SMALL, dataset=DataSet(tilt_series=True)))
    assert calls == ["tomo_01", "tomo_02"], "a file that was not asked for before is missing"
    calls.clear()
    simulate_dataset(out, BALLS, replace(SMALL, defocus_um=(2.0, 3.0)))
    assert calls == ["tomo_01", "tomo_02"], "what was made with other settings is made anew"
    assert not list(out.glob("*.st")), "the tilt series of the other settings is gone"


def test_tomograms_of_other_numbers_stay_on_record(tmp_path: Path) -> None:
    one = replace(SMALL, dataset=DataSet(tomograms=1))
    simulate_dataset(tmp_path, BALLS, one)
    simulate_dataset(tmp_path, BALLS, replace(one, dataset=DataSet(tomograms=1, first=2), defocus_um=(2.0, 3.0)))
    records = json.loads((tmp_path / "simulation.json").read_text())["tomograms"]
    assert list(records) == ["tomo_01", "tomo_02"]
    assert records["tomo_01"] != records["tomo_02"]
    for file in tmp_path.glob("tomo_01*"):
        file.unlink()
    simulate_dataset(tmp_path, BALLS, replace(one, dataset=DataSet(tomograms=1, first=2), defocus_um=(2.0, 3.0)))
    assert list(json.loads((tmp_path / "simulation.json").read_text())["tomograms"]) == ["tomo_02"]


def test_the_record_says_what_made_each_tomogram_and_how_crowded_it_is(tmp_path: Path) -> None:
    simulate_dataset(tmp_path, BALLS, replace(SMALL, defocus_um=(2.0, 5.0)))
    record = json.loads((tmp_path / "simulation.json").read_text())
    assert record["seed"] == 1 and record["species_kDa"] == {"ball": 500.0, "pea": 150.0}
    assert record["acquisition"]["tilt_step_deg"] == 20.0 and record["sample"]["copies"] == {"ball": 3, "pea": 4}
    one, two = record["tomograms"]["tomo_01"], record["tomograms"]["tomo_02"]
    assert one["acquisition"]["defocus_um"] != two["acquisition"]["defocus_um"]
    assert 2.0 <= one["acquisition"]["defocus_um"] <= 5.0
    truth = read_coordinates(tmp_path / "tomo_01_truth.star")
    crowding = one["crowding"]
    assert crowding["copies_in_tomogram"] == {name: len(table) for name, table in truth.by_label().items()}
    assert 0 < crowding["occupied"] < 0.5 and crowding["concentration_g_per_L"] > 0
    # No two of a ball and a pea come nearer than their bodies allow.
    assert 25 < crowding["nearest_A"]["0%"] <= crowding["nearest_A"]["50%"] < 400
