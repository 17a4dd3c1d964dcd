"""Picks compared with the truth in a real project by the real command: tables, verdicts as coordinates, refusals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHAPE, TOMOTWIN, point, write_mrc
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import Coordinate3D, SetOfCoordinates3D, SetOfTomograms, Tomogram
from tomo.protocols import ProtImportTomograms

from tomotwin_scipion.compared import parse_pairs
from tomotwin_scipion.protocols import ProtTwinEvaluatePicks
from tomotwin_view.star import write_tables

pytestmark = [
    pytest.mark.skipif(not os.path.exists(TOMOTWIN), reason="the engine is not installed here"),
    pytest.mark.usefixtures("real_engine"),
]

RATE, BINNED = 10.0, 20.0  # A; of the picks' tomograms and of those of the truth
SIDE_VOX = 16  # box of the picks: particles of 160 A, so that 40 A are allowed

# In voxels of 10 A: group, place, score. Of the truth only places and groups, under other group ids.
TRUTH = {"t1": [(1, (10, 10, 10)), (1, (40, 10, 10)), (2, (10, 40, 20))], "t2": [(2, (20, 20, 20))]}
PICKS = {
    "t1": [(5, (13, 10, 10), 0.9), (5, (60, 40, 5), 0.6), (6, (10, 40, 24), 0.8), (6, (10, 40, 20), 0.3)],
    "t2": [(5, (20, 20, 20), 0.5)],  # a particle of the other kind
    "t3": [(5, (9, 9, 9), 0.7)],  # a tomogram without truth
}


def tomograms(protocol: Any, name: str, rate: float, folder: Path, shape: tuple[int, ...]) -> Any:
    items = SetOfTomograms.create(protocol._getPath(), suffix=name)
    items.setSamplingRate(rate)
    for tsId in PICKS:
        path = folder / f"{name}_{tsId}.mrc"
        write_mrc(path, np.zeros(shape), rate)
        tomogram = Tomogram()
        tomogram.setFileName(str(path))
        tomogram.setTsId(tsId)
        tomogram.setSamplingRate(rate)
        items.append(tomogram)
    return items


def coordinates(protocol: Any, name: str, precedents: str, places: dict, factor: float, box: int) -> Any:
    source = getattr(protocol, precedents)
    found = SetOfCoordinates3D.create(protocol._getPath(), suffix=name)
    from pyworkflow.object import Pointer

    found.setPrecedents(Pointer(protocol, extended=precedents))
    found.setSamplingRate(source.getSamplingRate())
    found.setBoxSize(box)
    for tsId, rows in places.items():
        tomogram = source[{Tomogram.TS_ID_FIELD: tsId}]
        for group, xyz, *score in rows:
            item = Coordinate3D()
            item.setVolume(tomogram)
            item.setPosition(*(value / factor for value in xyz), BOTTOM_LEFT_CORNER)
            item.setTomoId(tsId)
            item.setGroupId(group)
            item.setScore(score[0] if score else 0.0)
            item.setMatrix(np.diag([1, -1, -1, 1]))
            found.append(item)
    return found


@pytest.fixture(scope="module")
def sets(project: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with the outputs fine and binned (tomograms), picks, and truth."""
    folder = tmp_path_factory.mktemp("tomograms")
    protocol = project.newProtocol(ProtImportTomograms, objLabel="sets to compare")
    project.saveProtocol(protocol)
    protocol.makePathsAndClean()
    half = tuple(side // 2 for side in SHAPE)
    protocol._defineOutputs(
        fine=tomograms(protocol, "fine", RATE, folder, SHAPE),
        binned=tomograms(protocol, "binned", BINNED, folder, half),
    )
    protocol._defineOutputs(
        picks=coordinates(protocol, "picks", "fine", PICKS, 1, SIDE_VOX),
        truth=coordinates(protocol, "truth", "binned", TRUTH, 2, SIDE_VOX // 2),
    )
    protocol._store()
    project._storeProtocol(protocol)
    return protocol


def new_evaluation(project: Any, sets: Any, **values: Any) -> Any:
    protocol = project.newProtocol(ProtTwinEvaluatePicks, **values)
    point(protocol.inputPicks, sets, "picks")
    point(protocol.inputTruth, sets, "truth")
    return protocol


def places(coordinates: Any) -> set[tuple]:
    return {
        (item.getTomoId(), item.getGroupId(), *(round(value, 3) for value in item.getPosition(BOTTOM_LEFT_CORNER)))
        for item in coordinates.iterCoordinates()
    }


@pytest.fixture(scope="module")
def evaluated(project: Any, launch: Any, sets: Any) -> Any:
    # Peaks of the run behind the picks, one of them the particle that was not picked.
    columns = ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "tomotwinLabel", "tomotwinScore"]
    for tsId in ("t1", "t2"):
        rows = [[tsId, *map(float, xyz), f"group_{group}", score, 160.0] for group, xyz, score in PICKS[tsId]]
        rows += [["t1", 40.0, 10.0, 11.0, "group_5", 0.2, 160.0]] if tsId == "t1" else []
        table = ([*columns, "tomotwinDiameterAngst"], rows)
        write_tables(sets._getExtraPath(f"{tsId}_peaks.star"), {"particles": table, "tomotwin_tomograms": (
            ["rlnTomoName", "tomotwinVoxelSizeAngst"], [[tsId, RATE]])})  # fmt: skip
    return launch(new_evaluation(project, sets, pairs="group_5 = group_1, group_6 = group_2"))


def test_right_false_and_missed_are_the_planted_ones_with_all_that_they_carried(evaluated: Any) -> None:
    # (10, 40, 24) and (10, 40, 20) are both near one particle: one of them counts, the closer.
    assert places(evaluated.rightPicks) == {("t1", 5, 13, 10, 10), ("t1", 6, 10, 40, 20)}
    assert places(evaluated.falsePicks) == {("t1", 5, 60, 40, 5), ("t1", 6, 10, 40, 24), ("t2", 5, 20, 20, 20)}
    # In voxels of the truth's tomograms, with the group ids of the picks.
    assert places(evaluated.missedParticles) == {("t1", 5, 20, 5, 5), ("t2", 6, 10, 10, 10)}
    assert evaluated.rightPicks.getSamplingRate() == RATE and evaluated.missedParticles.getSamplingRate() == BINNED
    scores = sorted(item.getScore() for item in evaluated.rightPicks.iterCoordinates())
    np.testing.assert_allclose(scores, [0.3, 0.9])
    for item in evaluated.falsePicks.iterCoordinates():
        np.testing.assert_array_equal(item.getMatrix(), np.diag([1, -1, -1, 1]))
    assert evaluated.falsePicks.getPrecedents().getTSIds() == list(PICKS)


def test_the_table_holds_precision_recall_and_f1_of_each_kind_in_all_tomograms_and_in_each(evaluated: Any) -> None:
    pooled, single = evaluated.getScores()
    found = {row["label"]: [float(row[name]) for name in ("precision", "recall", "f1")] for row in pooled}
    assert found == {"group_1": pytest.approx([1 / 3, 1 / 2, 0.4]), "group_2": pytest.approx([1 / 2, 1 / 2, 1 / 2])}
    counts = {(row["tomogram"], row["label"]): (row["n_true"], row["n_picked"], row["n_right"]) for row in single}
    assert counts == {
        ("t1", "group_1"): ("2", "2", "1"),
        ("t1", "group_2"): ("1", "2", "1"),
        ("t2", "group_1"): ("0", "1", "0"),
        ("t2", "group_2"): ("1", "0", "0"),
    }
    assert {float(row["tolerance_A"]) for row in pooled} == {40}


def test_the_curves_go_on_below_the_threshold_where_the_run_listed_fainter_candidates(evaluated: Any) -> None:
    curve = evaluated.getCurves()["group_1"]
    np.testing.assert_allclose(curve["threshold"], [0.9, 0.6, 0.5, 0.2])
    np.testing.assert_allclose(curve["recall"], [0.5, 0.5, 0.5, 1])
    np.testing.assert_allclose(curve["precision"], [1, 1 / 2, 1 / 3, 2 / 4], atol=1e-6)
    text = "\n".join(evaluated._summary())
    assert "*group_1*:  1 of 3, of 2;  0.33, 0.50, 0.40 (0.67 at 0.90)" in text
    assert "t2, group_2:  -, 0.00, 0.00" in text
    assert "compared with 4 true positions in 2 tomograms" in evaluated._methods()[0]


def test_all_as_one_kind_in_all_tomograms_by_overlap_of_boxes(project: Any, launch: Any, sets: Any) -> None:
    values = {"kinds": 1, "tomograms": 1, "criterion": 1, "minIou": 0.7, "useCandidates": False}
    protocol = launch(new_evaluation(project, sets, **values))
    (pooled,) = protocol.getScores()[0]
    # Shifted by 30 A of 160 boxes overlap with IoU 0.68, so that (13, 10, 10) is not right any more.
    assert places(protocol.rightPicks) == {("t1", 6, 10, 40, 20), ("t2", 5, 20, 20, 20)}
    assert [pooled[name] for name in ("n_true", "n_picked", "n_right")] == ["4", "6", "2"]
    assert {place[1] for place in places(protocol.missedParticles)} == {7}, "a group that no pick has"
    assert "overlap by more than 0.7 (IoU)" in protocol._methods()[0]

    # Continue with other settings compares anew: boxes as large as this all overlap, in the tomograms with truth.
    for name, value in (("diameter", 2000), ("minIou", 0.5), ("tomograms", 0), ("runMode", 0)):
        getattr(protocol, name).set(value)
    protocol = launch(protocol)
    assert protocol.rightPicks.getSize() == 4 and protocol.falsePicks.getSize() == 1
    assert protocol.missedParticles.getSize() == 0, "none is missed any more"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "The picks are of group_5, group_6 and the truth is of group_1, group_2: say which are the same"),
        ({"pairs": "group_5"}, "'group_5' is no pair"),
        ({"pairs": "group_9 = group_1"}, "'group_9' is no kind of the picks, which has group_5, group_6"),
        ({"pairs": "group_5 = ribosome"}, "'ribosome' is no kind of the truth"),
        ({"kinds": 1, "tolerance": 0.0}, "a share of the diameter, larger than 0 and at most 1"),
        ({"kinds": 1, "criterion": 1, "minIou": 1.0}, "Smallest overlap"),
        ({"kinds": 1, "diameter": 5.0}, "within 10 and 2000"),
    ],
)
def test_what_cannot_be_compared_is_said_before_the_run(project: Any, sets: Any, values: dict, sentence: str) -> None:
    (error,) = new_evaluation(project, sets, **values).validate()
    assert sentence in error


def test_one_and_the_same_set_and_kinds_without_truth_are_told(project: Any, sets: Any) -> None:
    protocol = new_evaluation(project, sets, kinds=1)
    point(protocol.inputTruth, sets, "picks")
    (error,) = protocol.validate()
    assert "one and the same set" in error
    protocol = new_evaluation(project, sets, pairs="group_5 = group_1")
    assert protocol.validate() == []
    assert "no true positions of group_6" in protocol.warnings()[0]


def test_pairs_are_read_with_commas_semicolons_and_lines() -> None:
    assert parse_pairs("a = b, group_2=c d;\n e= f\n") == {"a": "b", "group_2": "c d", "e": "f"}
    assert parse_pairs("") == {}
