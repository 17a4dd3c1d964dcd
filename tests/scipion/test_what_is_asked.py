"""Only what the form asks for is done: inputs that Scipion fills in by itself count for nothing without their switch, an
output for each target and its box come when wanted, and what cannot go together is told before the run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import VOXEL_SIZE_A, point, write_mrc
from pwem.objects import AtomStruct
from pyworkflow.object import Pointer
from pyworkflow.protocol import params
from test_protocols_in_a_project import (  # noqa: F401
    PLANTED,
    embedded,
    picked,
    positions,
    references,
    tomograms,
)
from test_reference_picking import keep, masks, new_picking  # noqa: F401
from tomo.objects import SetOfCoordinates3D

from tomotwin_scipion import protocols
from tomotwin_scipion.convert import box_of, write_positions
from tomotwin_scipion.protocols import (
    ProtTwinCreateMask,
    ProtTwinExtractSubtomograms,
    ProtTwinOrientPicks,
    ProtTwinTrainModel,
)
from tomotwin_scipion.protocols.positions_form import tomograms_of
from tomotwin_scipion.targets import diameters_by_group
from tomotwin_view.star import read_table

MODEL_CHOICE = ("inputModel",)  # asked for by another choice than a switch


@pytest.fixture(scope="module")
def kept(picked: Any) -> Pointer:  # noqa: F811
    """What stayed of the picks after one was thrown out."""
    return keep(picked, "kept", picked.output3DCoordinates, lambda *place: place != ("first", 33, 3, 29))


# ------------------------------ what Scipion fills in ------------------------------
@pytest.mark.parametrize("name", protocols.__all__)
def test_no_optional_pointer_counts_before_somebody_has_asked_for_it(project: Any, name: str) -> None:
    """Scipion fills in every pointer of a new form whose class matches an output of the selected run; those whose condition
    is not met it clears again."""
    protocol = project.newProtocol(getattr(protocols, name))
    asked = [
        name
        for name, param in protocol.getDefinition().iterParams()
        if type(param) is params.PointerParam and param.allowsNull and protocol.evalParamCondition(name)
    ]
    # The molecule of orient picks is no option: either it or an identifier is needed, and a choice says which.
    assert asked == (["inputReference"] if name == "ProtTwinOrientPicks" else [])


def test_picks_masks_and_other_tomograms_that_are_filled_in_unasked_change_nothing(
    project: Any, launch: Any, embedded: Any, references: Any, picked: Any, kept: Any, masks: Any, calls: Any  # noqa: F811
) -> None:  # fmt: skip
    protocol = new_picking(project, embedded, Pointer(references, extended="outputVolumes"))
    point(protocol.acceptedPicks, picked, "output3DCoordinates")
    point(protocol.allPicks, picked, "output3DCoordinates")
    protocol.inputMasks.copy(masks)
    assert protocol.validate() == [] and protocol.warnings() == []
    protocol = launch(protocol)
    assert [call[0] for call in calls()] == ["reference", "locate", "pick", "locate", "pick"]
    assert not any("--mask" in call for call in calls())
    assert positions(protocol.output3DCoordinates) == PLANTED
    assert "refitted" not in "\n".join(protocol._summary() + protocol._methods())


@pytest.mark.parametrize("kind", [ProtTwinOrientPicks, ProtTwinExtractSubtomograms])
def test_other_tomograms_count_when_they_are_asked_for(
    project: Any, picked: Any, tomograms: Any, embedded: Any, kind: Any  # noqa: F811
) -> None:  # fmt: skip
    protocol = project.newProtocol(kind, group=1, moleculeFrom=1, identifier="library:1aon")
    point(protocol.inputCoordinates, picked, "output3DCoordinates")
    own = picked.output3DCoordinates.getPrecedents().getFileName()
    other = keep_tomograms(embedded, tomograms)
    protocol.inputTomograms.copy(other)
    assert tomograms_of(protocol).getFileName() == own != other.get().getFileName()
    protocol.otherTomograms.set(True)
    assert tomograms_of(protocol).getFileName() == other.get().getFileName()
    protocol.inputTomograms.set(None)
    assert "Tomograms: give them, or say No" in protocol.validate()[0]


def keep_tomograms(protocol: Any, source: Any) -> Pointer:
    """The same tomograms as a further output of another run."""
    from tomo.objects import SetOfTomograms

    if not hasattr(protocol, "others"):
        output = SetOfTomograms.create(protocol._getPath(), template="others%s.sqlite")
        output.copyInfo(source.Tomograms)
        for item in source.Tomograms.iterItems():
            output.append(item.clone())
        output.write()
        protocol._defineOutputs(others=output)
        protocol._store()
    return Pointer(protocol, extended="others")


def test_training_takes_other_tomograms_when_they_are_asked_for(
    project: Any, picked: Any, tomograms: Any, embedded: Any  # noqa: F811
) -> None:  # fmt: skip
    protocol = project.newProtocol(ProtTwinTrainModel)
    protocol.inputCoordinates.append(Pointer(picked, extended="output3DCoordinates"))
    other = keep_tomograms(embedded, tomograms)
    protocol.inputTomograms.copy(other)
    assert sorted(protocol._getTomograms()) == sorted(PLANTED) and protocol._dataSettings()
    before = protocol._dataSettings()
    protocol.inputTomograms.set(None)
    assert protocol._dataSettings() == before
    protocol.otherTomograms.set(True)
    assert any("Tomograms: give them, or say No" in error for error in protocol.validate())


def test_a_mask_run_and_a_molecule_obey_their_choices(
    project: Any, picked: Any, tomograms: Any, masks: Any, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    masking = project.newProtocol(ProtTwinCreateMask, autoSlab=False, excludeGold=False, excludeCarbon=False)
    point(masking.inputTomograms, tomograms, "Tomograms")
    masking.inputMasks.copy(masks)
    assert "choose at least one thing" in masking.validate()[0]
    masking.useMasks.set(True)
    assert masking.validate() == []
    masking.inputMasks.set(None)
    assert "Masks: give them, or say No" in masking.validate()[0]

    orienting = project.newProtocol(ProtTwinOrientPicks, group=1, moleculeFrom=1, identifier="library:1aon")
    point(orienting.inputCoordinates, picked, "output3DCoordinates")
    by_identifier = orienting._searchDigest("first")
    model = AtomStruct(filename=str(tmp_path / "model.cif"))
    (tmp_path / "model.cif").write_text("data_x\n")
    orienting.inputReference.set(model)
    assert orienting.validate() == [] and orienting._searchDigest("first") == by_identifier
    orienting.moleculeFrom.set(0)
    assert orienting.validate() == [] and orienting._searchDigest("first") != by_identifier


# ------------------------------ what does not go together ------------------------------
def other_run(project: Any, source: Any, names: dict[int, str]) -> Pointer:
    """The same picks as those of another run, whose groups have other names."""
    protocol = project.newProtocol(protocols.ProtTwinReferencePicking)
    project.saveProtocol(protocol)
    protocol.makePathsAndClean()
    with open(protocol._getExtraPath("groups.csv"), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["group_id", "target", "diameter_A"])
        writer.writerows([group, name, 100] for group, name in names.items())
    return keep(protocol, "output3DCoordinates", source, lambda *place: True)


@pytest.mark.parametrize(
    ("accepted", "picks", "named", "sentence"),
    [
        ("all", "all", False, "are one and the same set"),
        ("kept", "kept", True, "are one and the same set"),
        ({1: "1abc", 2: "spike"}, "all", False, "their group 2 is spike, and 2_def there where they were chosen"),
        ({1: "2_def", 2: "1abc"}, "all", True, "their group 1 is 2_def, and 1abc there"),
        ("all", {1: "1abc", 2: "spike"}, False, "their group 2 is 2_def, and spike there"),
        ("all", {1: "1abc"}, True, "their group 2 is 2_def, and none there"),
        ("kept", "nameless", True, "do not say of which target they are, and the page Input names 2"),
        ("nameless", {1: "1abc", 2: "spike"}, True, "the picks are of spike, and the page Input names 1abc, 2_def"),
    ],
)
def test_the_same_set_twice_and_other_targets_are_refused_before_the_run(
    project: Any, embedded: Any, references: Any, picked: Any, kept: Any, accepted: Any, picks: Any, named: bool, sentence: str  # noqa: F811
) -> None:  # fmt: skip
    everything = Pointer(picked, extended="output3DCoordinates")

    def chosen(which: Any) -> Pointer:
        if isinstance(which, dict):
            return other_run(project, picked.output3DCoordinates, which)
        if which == "nameless":
            return keep(embedded, "nameless", picked.output3DCoordinates, lambda *place: True)
        return {"all": everything, "kept": kept}[which]

    given = [Pointer(references, extended="outputVolumes")] if named else []
    protocol = new_picking(project, embedded, *given, refine=True)
    protocol.acceptedPicks.copy(chosen(accepted))
    protocol.allPicks.copy(chosen(picks))
    (error,) = protocol.validate()
    assert sentence in error


def test_targets_named_as_before_are_refined_with_what_was_kept_of_them(
    project: Any, embedded: Any, references: Any, picked: Any, kept: Any  # noqa: F811
) -> None:  # fmt: skip
    protocol = new_picking(project, embedded, Pointer(references, extended="outputVolumes"), refine=True)
    protocol.acceptedPicks.copy(kept)
    point(protocol.allPicks, picked, "output3DCoordinates")
    assert protocol.validate() == []


# ------------------------------ an output for each target ------------------------------
def test_each_target_is_an_output_with_a_box_of_its_own_when_that_is_wanted_and_by_continue_too(
    project: Any, launch: Any, embedded: Any, references: Any, picked: Any, calls: Any  # noqa: F811
) -> None:  # fmt: skip
    assert not hasattr(picked, "coordinates_1abc")
    protocol = new_picking(project, embedded, Pointer(references, extended="outputVolumes"))
    protocol = launch(protocol)
    before = len(calls())
    protocol.outputEach.set(True)
    protocol.runMode.set(0)
    protocol = launch(protocol)
    assert calls()[before:] == []
    for name, group in (("coordinates_1abc", 1), ("coordinates_2_def", 2)):
        single = getattr(protocol, name)
        wanted = {tsId: {at for at, one in own.items() if one == group} for tsId, own in PLANTED.items()}
        assert {tsId: set(own) for tsId, own in positions(single).items()} == {k: v for k, v in wanted.items() if v}
        assert single.getBoxSize() == box_of(100.0, VOXEL_SIZE_A) == 20
        assert sorted(single.getPrecedents().getTSIds()) == sorted(PLANTED)
    assert positions(protocol.output3DCoordinates) == PLANTED


@pytest.mark.parametrize(
    ("diameter", "rate", "box"),
    [(100, 8, 20), (100, 10, 16), (96, 8, 18), (320, 10, 48), (101, 8, 20), (250, 13.48, 28), (10, 45, 2)],
)
def test_a_box_is_one_and_a_half_diameters_and_even(diameter: float, rate: float, box: int) -> None:
    assert box_of(diameter, rate) == box


def test_coordinates_that_have_left_their_run_still_say_how_large_the_particles_are(
    picked: Any, kept: Any, embedded: Any, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    away = keep(embedded, "away", picked.output3DCoordinates, lambda *place: True).get()
    assert away.getBoxSize() == 20  # 160 A, which is no diameter
    assert diameters_by_group(away) == diameters_by_group(kept.get()) == {1: 100.0, 2: 100.0}
    write_positions(away, str(tmp_path / "away.star"), VOXEL_SIZE_A, sorted(PLANTED))
    rows = read_table(str(tmp_path / "away.star"), "particles")
    assert {float(row["tomotwinDiameterAngst"]) for row in rows} == {100.0}
    strange = SetOfCoordinates3D(filename=str(tmp_path / "strange.sqlite"))
    assert diameters_by_group(strange) == {}


# ------------------------------ the engine's sentence ------------------------------
def test_the_engines_sentence_is_the_error_of_a_run_and_stands_in_its_summary(
    project: Any, launch: Any, embedded: Any, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    write_mrc(tmp_path / "map.mrc", np.ones((8, 8, 8)), 5.0)
    protocol = project.newProtocol(protocols.ProtTwinReferencePicking, numberOfThreads=1)
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    protocol.identifiers.set("library:nowhere")
    protocol = launch(protocol, expect="failed")
    assert "there is no molecule nowhere in the library" in protocol.getErrorMessage()
    assert "exit status" not in protocol.getErrorMessage()
    (line,) = [line for line in protocol._summary() if "failed" in line]
    assert line == "*The run failed:* there is no molecule nowhere in the library."
    assert "Traceback" not in Path(protocol.getStderrLog()).read_text()
