"""Targets of all kinds, regions, thresholds by expected rates and refinement, with a stand-in for the engine."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SHAPE, VOXEL_SIZE_A, point, write_mrc
from pyworkflow.object import Pointer
from test_protocols_in_a_project import (  # noqa: F401
    PLANTED,
    embedded,
    picked,
    positions,
    references,
    tomograms,
)
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import SetOfCoordinates3D, SetOfSubTomograms, SetOfTomoMasks, SubTomogram, TomoMask

from tomotwin_scipion.protocols import ProtTwinReferencePicking
from tomotwin_view.star import read_table

BOX_A = 32 * 5.0


def keep(protocol: Any, name: str, coordinates: Any, wanted: Any) -> Pointer:
    """A further output of a run: the coordinates of a set at positions (tsId, x, y, z) that are wanted."""
    output = SetOfCoordinates3D.create(protocol._getPath(), suffix=name)
    output.copyInfo(coordinates)
    output.setPrecedents(coordinates._precedentsPointer)
    for item in coordinates.iterCoordinates():
        if wanted(item.getTomoId(), *np.round(item.getPosition(BOTTOM_LEFT_CORNER)).astype(int)):
            output.append(item.clone())
    output.write()
    return define(protocol, name, output)


def define(protocol: Any, name: str, output: Any) -> Pointer:
    protocol._defineOutputs(**{name: output})
    protocol._store()
    return Pointer(protocol, extended=name)


@pytest.fixture(scope="module")
def by_hand(embedded: Any, picked: Any) -> Pointer:  # noqa: F811
    """Positions in one tomogram that no run of the plugin has named; they know themselves that they are 100 A wide."""
    return keep(embedded, "byHand", picked.output3DCoordinates, lambda tsId, *xyz: tsId == "first")


@pytest.fixture(scope="module")
def cut_out(embedded: Any, tmp_path_factory: pytest.TempPathFactory) -> Pointer:  # noqa: F811
    """A set of two subtomograms, 5 A a voxel, with no voxel size in their headers."""
    folder = tmp_path_factory.mktemp("cut")
    output = SetOfSubTomograms.create(embedded._getPath(), suffix="cut")
    output.setSamplingRate(5.0)
    for number in (1, 2):
        write_mrc(folder / f"{number}.mrc", np.full((32, 32, 32), number), voxel_size=0.0)
        subtomogram = SubTomogram()
        subtomogram.setLocation(str(folder / f"{number}.mrc"))
        subtomogram.setSamplingRate(5.0)
        output.append(subtomogram)
    output.write()
    return define(embedded, "cutOut", output)


def new_picking(project: Any, embedded: Any, *references: Pointer, **values: Any) -> Any:  # noqa: F811
    protocol = project.newProtocol(ProtTwinReferencePicking, **{"numberOfThreads": 1, **values})
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    for pointer in references:
        protocol.inputReferences.append(pointer)
    return protocol


def test_maps_subtomograms_identifiers_and_examples_mix_and_an_expected_rate_sets_the_threshold(
    project: Any, launch: Any, embedded: Any, references: Any, picked: Any, cut_out: Any, by_hand: Any, calls: Any  # noqa: F811
) -> None:  # fmt: skip
    maps = Pointer(references, extended="outputVolumes")
    protocol = new_picking(project, embedded, maps, cut_out, diameter=120, thresholdMode=2, fdr=0.1)
    protocol.identifiers.set("pdb:4v6x, library:1dzl")
    protocol.inputExamples.append(by_hand)
    protocol.inputExamples.append(Pointer(picked, extended="output3DCoordinates"))
    protocol = launch(protocol)

    (reference,) = (call for call in calls() if call[0] == "reference")
    folder = protocol._getExtraPath("references")
    assert reference[1:9] == [
        f"1abc={folder}/1abc.mrc",
        f"2_def={folder}/2_def.mrc",
        f"subtomograms=subtomograms:{folder}/subtomograms",
        "4v6x=pdb:4v6x",
        "1dzl=library:1dzl",
        f"examples={folder}/examples.star",
        f"1abc_2={folder}/1abc_2.star",  # out of a run that knows what its groups are
        f"2_def_2={folder}/2_def_2.star",
    ]
    zarrs = [embedded._getExtraPath(tsId + ".zarr") for tsId in sorted(PLANTED)]
    assert [reference[i + 1] for i, word in enumerate(reference) if word == "--embedding"] == zarrs
    assert "--no-template" not in reference

    boxes = sorted(Path(folder, "subtomograms").iterdir())
    import mrcfile

    for box, value in zip(boxes, (1, 2), strict=True):
        with mrcfile.open(box) as file:
            assert file.voxel_size.x == 5.0 and file.data[0, 0, 0] == value
    rows = read_table(f"{folder}/examples.star", "particles")
    assert {float(row["tomotwinDiameterAngst"]) for row in rows} == {100.0}
    assert {tuple(float(row["rlnCoordinate" + axis]) for axis in "XYZ") for row in rows} == set(PLANTED["first"])
    rows = read_table(f"{folder}/1abc_2.star", "particles")
    assert {tuple(float(row["rlnCoordinate" + axis]) for axis in "XYZ") for row in rows} == {(5, 7, 11), (33, 3, 29)}
    assert {float(row["tomotwinDiameterAngst"]) for row in rows} == {100.0}

    assert all("--fdr 0.1" in " ".join(call) for call in calls() if call[0] == "pick")
    coordinates = protocol.output3DCoordinates
    kept = {"first": {(5, 7, 11): 1, (33, 3, 29): 1, (60, 40, 20): 2}, "TS_2_nd": PLANTED["TS_2_nd"]}
    dropped = [xyz for xyz in kept["first"] if xyz not in positions(coordinates)["first"]]
    assert len(dropped) == 1 and positions(coordinates)["TS_2_nd"] == PLANTED["TS_2_nd"]
    for item in coordinates.iterCoordinates():  # score and rate of each pick go together
        assert item._tomotwinFDR.get() == pytest.approx(10 * (0.99 - item.getScore()), abs=1e-3)
    text = "\n".join(protocol._summary())
    assert "*4 picks* in 2 tomograms" in text and "threshold: expected FDR 0.1" in text
    with open(protocol._getExtraPath("groups.csv"), newline="") as file:
        names = [row["target"] for row in csv.DictReader(file)]
    assert names == ["1abc", "2_def", "subtomograms", "4v6x", "1dzl", "examples", "1abc_2", "2_def_2"]


@pytest.fixture(scope="module")
def masks(embedded: Any, tmp_path_factory: pytest.TempPathFactory) -> Pointer:  # noqa: F811
    """A set of masks with one for the tomogram "first": its half of small x."""
    half = np.zeros(SHAPE)
    half[:, :, :40] = 2
    path = tmp_path_factory.mktemp("masks") / "some name.mrc"
    write_mrc(path, half, VOXEL_SIZE_A)
    output = SetOfTomoMasks.create(embedded._getPath(), template="masks%s.sqlite")
    output.setSamplingRate(VOXEL_SIZE_A)
    mask = TomoMask()
    mask.setLocation(str(path))
    mask.setSamplingRate(VOXEL_SIZE_A)
    mask.setTsId("first")
    output.append(mask)
    output.write()
    return define(embedded, "masks", output)


def test_masks_by_tsid_planes_and_automatic_regions_reach_the_engine(
    project: Any, launch: Any, embedded: Any, references: Any, masks: Any, calls: Any  # noqa: F811
) -> None:  # fmt: skip
    maps = Pointer(references, extended="outputVolumes")
    region = {"zFirst": 1, "zLast": 28, "autoSlab": True, "excludeGold": True, "excludeCarbon": True}
    protocol = new_picking(project, embedded, maps, **region)
    protocol.inputMasks.copy(masks)
    protocol.useMasks.set(True)
    assert "1 tomogram(s) have no mask and are taken whole, the first is TS_2_nd" in protocol.warnings()[0]
    protocol = launch(protocol)
    located = {Path(call[1]).stem: call for call in calls() if call[0] == "locate"}
    for call in located.values():
        assert "--z-range 1 28 --auto-slab --exclude-gold --exclude-carbon" in " ".join(call)
    mask = located["first"][located["first"].index("--mask") + 1]
    assert mask.endswith("masks/first.mrc") and "--mask" not in located["TS_2_nd"]
    # By the mask (60, 40, 20) is left out; by the planes (33, 3, 29) and (69, 49, 0).
    assert positions(protocol.output3DCoordinates) == {"first": {(5, 7, 11): 1}, "TS_2_nd": {(1, 2, 3): 2}}


def test_masks_of_another_size_or_of_other_tomograms_are_refused(
    project: Any, embedded: Any, references: Any, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    maps = Pointer(references, extended="outputVolumes")
    write_mrc(tmp_path / "small.mrc", np.ones((5, 6, 7)), VOXEL_SIZE_A)
    for tsId, sentence in (("first", "7 × 6 × 5 voxels and the tomogram 70 × 50 × 30"), ("other", "tsIds differ")):
        output = SetOfTomoMasks.create(str(tmp_path), template=f"{tsId}%s.sqlite")
        output.setSamplingRate(VOXEL_SIZE_A)
        mask = TomoMask()
        mask.setLocation(str(tmp_path / "small.mrc"))
        mask.setTsId(tsId)
        output.append(mask)
        output.write()
        protocol = new_picking(project, embedded, maps, useMasks=True)
        protocol.inputMasks.set(output)
        (error,) = protocol.validate()
        assert sentence in error


def test_what_was_rejected_refits_the_references_of_that_run_and_is_found_no_more(
    project: Any, launch: Any, embedded: Any, picked: Any, calls: Any  # noqa: F811
) -> None:  # fmt: skip
    wrong = [("first", 33, 3, 29), ("TS_2_nd", 1, 2, 3), ("TS_2_nd", 69, 49, 0)]
    good = keep(picked, "good", picked.output3DCoordinates, lambda *place: place not in wrong)
    protocol = new_picking(project, embedded, refine=True)
    protocol.acceptedPicks.copy(good)
    point(protocol.allPicks, picked, "output3DCoordinates")
    protocol = launch(protocol)
    assert "reference" not in [call[0] for call in calls()]
    (refine,) = (call for call in calls() if call[0] == "refine")
    assert [Path(word).name for word in refine[1:3]] == ["TS_2_nd.zarr", "first.zarr"]
    rows = read_table(protocol._getExtraPath("decisions", "corrected.star"), "particles")
    assert [(row["rlnTomoName"], row["tomotwinLabel"]) for row in rows] == [("first", "1abc"), ("first", "2_def")]
    # Both tomograms are named, so that the engine knows that all picks of one were rejected.
    listed = read_table(protocol._getExtraPath("decisions", "corrected.star"), "tomotwin_tomograms")
    assert [row["rlnTomoName"] for row in listed] == ["TS_2_nd", "first"]
    assert positions(protocol.output3DCoordinates) == {"first": {(5, 7, 11): 1, (60, 40, 20): 2}}
    text = "\n".join(protocol._summary())
    assert "References were refitted" in text and "*1*  1abc" in text and "*2*  2_def" in text


@pytest.mark.parametrize(
    ("values", "wanted", "sentence"),
    [
        ({"refine": True}, ["acceptedPicks"], "give both the accepted picks"),
        ({"refine": True}, ["handPicked"], "the picks come from no run of reference picking"),
        ({"refine": True, "refinementPrior": 0.0}, ["kept", "allPicks"], "larger than 0 and at most 1000"),
        ({}, ["cutOut"], "how large the particle is; give it in Å"),
        ({"thresholdMode": 2, "calibrateExamples": False}, ["examples"], "without calibration of the examples no FDR"),
    ],
)
def test_what_does_not_go_together_is_said_before_the_run(
    project: Any, embedded: Any, picked: Any, by_hand: Any, cut_out: Any, values: dict, wanted: list, sentence: str  # noqa: F811
) -> None:  # fmt: skip
    protocol = new_picking(project, embedded, **values)
    everything = Pointer(picked, extended="output3DCoordinates")
    if "cutOut" in wanted:
        protocol.inputReferences.append(cut_out)
    if "examples" in wanted:
        protocol.inputExamples.append(by_hand)
    sets = {
        "acceptedPicks": [("acceptedPicks", everything)],
        "kept": [("acceptedPicks", by_hand)],
        "allPicks": [("allPicks", everything)],
        "handPicked": [("acceptedPicks", everything), ("allPicks", by_hand)],
    }
    for name, pointer in [pair for one in wanted for pair in sets.get(one, [])]:
        getattr(protocol, name).copy(pointer)
    (error,) = protocol.validate()
    assert sentence in error


def test_where_nothing_is_verified_no_template_is_made_of_examples(
    project: Any, launch: Any, embedded: Any, by_hand: Any, calls: Any  # noqa: F811
) -> None:  # fmt: skip
    protocol = new_picking(project, embedded, verify=False)
    protocol.inputExamples.append(by_hand)
    launch(protocol)
    reference, located = (next(call for call in calls() if call[0] == command) for command in ("reference", "locate"))
    assert "--no-template" in reference and "--no-verification" in located
