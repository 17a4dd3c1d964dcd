"""What *Continue* makes again, what it leaves, and what stays out: results that somebody deleted, whole workflows that are
continued together, and items that were disabled. In a real project, with a stand-in for the engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import VOXEL_SIZE_A, point, write_mrc
from pwem.objects import SetOfVolumes, Volume
from pyworkflow.object import Pointer
from test_protocols_in_a_project import positions
from test_streaming_and_continue import (  # noqa: F401
    PLACES,
    Growing,
    growing,
    new_embedding,
    new_picking,
    now,
    resumed,
    start,
    target,
    tomograms_of,
    wait_until,
)
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import Coordinate3D, SetOfCoordinates3D, SetOfTomoMasks, TomoMask

from tomotwin_scipion.compared import kind_names, write_compared
from tomotwin_scipion.convert import write_positions
from tomotwin_scipion.enabled import enabled_coordinates, groups_of, ts_ids
from tomotwin_scipion.protocols import ProtTwinCreateMask, ProtTwinExtractSubtomograms
from tomotwin_scipion.protocols.region_form import _masks_of
from tomotwin_scipion.targets import iter_references
from tomotwin_view.star import read_table


# ------------------------------ what was deleted ------------------------------
def remove(path: str) -> None:
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def empty(path: str) -> None:
    for name in os.listdir(path):
        remove(os.path.join(path, name))


@pytest.fixture(scope="module")
def workflow(project: Any, launch: Any, target: Pointer, tmp_path_factory: Any) -> Any:  # noqa: F811
    """Two tomograms, embedded, picked in and masked."""
    source = Growing(project, tmp_path_factory.mktemp("source"))
    source.add("a", "z")
    embedding = launch(new_embedding(project, source))
    picking = launch(new_picking(project, embedding, target))
    masking = project.newProtocol(ProtTwinCreateMask, numberOfThreads=1)
    point(masking.inputTomograms, source.protocol, "Tomograms")
    return {"embed": embedding, "pick": picking, "mask": launch(masking)}


@pytest.mark.parametrize(
    ("run", "lost", "how", "made"),
    [
        ("pick", ["z_picks.star", "groups.csv", "picks.csv"], remove, ["pick z"]),
        ("pick", ["a_peaks.star", "z_picks.csv"], remove, ["locate a", "pick z"]),
        ("pick", ["targets.json", "output"], remove, ["reference"]),
        ("pick", ["made_references.safetensors", "references.safetensors"], remove, ["reference"]),
        ("embed", ["a.zarr"], remove, ["embed a"]),
        ("embed", ["a.zarr"], empty, ["embed a"]),
        ("embed", ["output"], remove, []),
        ("mask", ["z_mask.mrc"], remove, ["mask z"]),
        ("mask", ["output"], remove, ["mask a", "mask z"]),
    ],
)
def test_continue_makes_again_what_was_deleted_and_nothing_else(
    launch: Any, workflow: Any, calls: Any, run: str, lost: list[str], how: Callable[[str], None], made: list[str]
) -> None:
    protocol = workflow[run]
    name = {"embed": "Embeddings", "pick": "output3DCoordinates", "mask": "TomoMasks"}[run]
    paths = [getattr(protocol, name).getFileName() if one == "output" else protocol._getExtraPath(one) for one in lost]
    for path in paths:
        how(path)
    workflow[run] = protocol = launch(resumed(protocol))
    told = [[call[0], Path(call[1]).name.split(".")[0].split("_")[0]] for call in calls()]
    assert sorted(" ".join(words[:1] if words[0] == "reference" else words) for words in told) == made
    output = getattr(protocol, name)
    assert sorted(output.getTSIds()) == ["a", "z"] and output.getSize() == 2 and output.isStreamClosed()
    assert all(os.path.exists(path) for path in [*paths, output.getFileName()] if "output" not in lost)
    if run == "pick":
        assert positions(output) == {tsId: {PLACES[tsId]: 1} for tsId in "az"}
        assert "*2 picks* in 2 tomograms" in protocol._summary()[0]
    else:
        assert all(os.path.exists(item.getFileName()) for item in output.iterItems())


def test_picking_says_which_run_makes_lost_embeddings_again(project: Any, workflow: Any, target: Pointer) -> None:  # noqa: F811
    protocol = new_picking(project, workflow["embed"], target)
    path = workflow["embed"]._getExtraPath("a.zarr")
    os.rename(path, path + ".away")
    (error,) = protocol.validate()
    os.rename(path + ".away", path)
    assert "no longer on disk" in error and "continue the run of embed tomograms" in error


# ------------------------------ continued together ------------------------------
def test_runs_that_are_continued_together_wait_for_each_other_and_lose_nothing(
    project: Any, launch: Any, growing: Growing, target: Pointer, calls: Any, monkeypatch: Any, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    hold = tmp_path / "hold"
    monkeypatch.setenv("FAKE_TOMOTWIN_HOLD", str(hold))
    growing.add("a", "z")
    embedding = launch(new_embedding(project, growing))
    picking = launch(new_picking(project, embedding, target))
    growing.add("held")
    hold.write_text("embed")
    embedding, picking = resumed(embedding), resumed(picking)
    start(project, embedding)
    start(project, picking)  # it has nothing to do yet, and its input was closed when it was looked at last
    wait_until(lambda: any(call[0] == "embed" and "held" in call[1] for call in calls()))
    wait_until(lambda: now(project, picking).isRunning())
    for _ in range(8):  # it must not end before what it takes tomograms from
        wait_until(lambda: True)
        assert not now(project, picking).isFailed()
    hold.unlink()
    wait_until(lambda: not now(project, embedding).isActive() and not now(project, picking).isActive())
    embedding, picking = now(project, embedding), now(project, picking)
    assert embedding.isFinished() and picking.isFinished(), picking.getErrorMessage()
    assert positions(picking.output3DCoordinates) == {tsId: {PLACES[tsId]: 1} for tsId in ("a", "held", "z")}
    assert picking.output3DCoordinates.isStreamClosed() and picking.output3DCoordinates.getSize() == 3


def test_a_tomogram_that_comes_after_the_closing_step_was_let_go_is_done_before_the_output_closes(
    project: Any, launch: Any, growing: Growing, target: Pointer, calls: Any, monkeypatch: Any, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    hold = tmp_path / "hold"
    monkeypatch.setenv("FAKE_TOMOTWIN_HOLD", str(hold))
    growing.add("held", "a")
    masking = project.newProtocol(ProtTwinCreateMask, numberOfThreads=1)
    point(masking.inputTomograms, growing.protocol, "Tomograms")
    hold.write_text("mask")
    start(project, masking)
    wait_until(lambda: any(call[0] == "mask" and "held" in call[1] for call in calls()))
    growing.add("z")  # though nobody has said that more would come
    hold.unlink()
    wait_until(lambda: not now(project, masking).isActive())
    masking = now(project, masking)
    assert masking.isFinished() and sorted(masking.TomoMasks.getTSIds()) == ["a", "held", "z"]


# ------------------------------ what was disabled ------------------------------
def disable(items: Any, *ids: int) -> None:
    """As the viewers of Scipion do it: in the file of the set."""
    for number in ids:
        one = items[number].clone()
        one.setEnabled(False)
        items.update(one)
    items.write()


def test_a_tomogram_that_is_disabled_stays_out_and_leaves_the_output_by_continue(
    project: Any, launch: Any, growing: Growing, target: Pointer, calls: Any  # noqa: F811
) -> None:  # fmt: skip
    growing.add("a", "b", "z")
    disable(growing.set, 2)
    growing.store()
    embedding = launch(new_embedding(project, growing))
    assert sorted(embedding.Embeddings.getTSIds()) == ["a", "z"]
    picking = launch(new_picking(project, embedding, target))
    items = picking.inputEmbeddings.get()
    disable(items, *[item.getObjId() for item in items.iterItems() if item.getTsId() == "z"])
    before = len(calls())
    picking = launch(resumed(picking))
    assert calls()[before:] == []
    assert positions(picking.output3DCoordinates) == {"a": {PLACES["a"]: 1}}


@pytest.fixture
def half_disabled(growing: Growing) -> SetOfCoordinates3D:  # noqa: F811
    """Coordinates of the groups 1 to 4 in a and b, of which the groups 2 and 4, and all in b, are disabled."""
    growing.add("a", "b")
    coordinates = SetOfCoordinates3D(filename=str(growing.folder / "half.sqlite"))
    coordinates.setSamplingRate(VOXEL_SIZE_A)
    coordinates.setBoxSize(10)
    coordinates.setPrecedents(Pointer(growing.protocol, extended="Tomograms"))
    for group, tsId in ((1, "a"), (2, "a"), (3, "a"), (4, "b")):
        item = Coordinate3D()
        item.setVolume(next(one.clone() for one in growing.set.iterItems() if one.getTsId() == tsId))
        item.setTomoId(tsId)
        item.setPosition(group, 2 * group, 3 * group, BOTTOM_LEFT_CORNER)
        item.setGroupId(group)
        coordinates.append(item)
    coordinates.write()
    disable(coordinates, 2, 4)
    return coordinates


def test_coordinates_that_are_disabled_stay_out_of_every_table(half_disabled: Any, tmp_path: Path) -> None:
    assert groups_of(half_disabled) == [1, 3] and ts_ids(half_disabled) == ["a"]
    assert sorted(kind_names(half_disabled)) == [1, 3]
    path = str(tmp_path / "places.star")
    write_positions(half_disabled, path, VOXEL_SIZE_A, ["a", "b"])
    assert [float(row["rlnCoordinateX"]) for row in read_table(path, "particles")] == [1.0, 3.0]
    rows = write_compared(half_disabled, ["a", "b"], {1: "x", 3: "y"}, {"x": 100.0, "y": 100.0}, path)
    assert rows == {"a": [1, 3], "b": []}
    assert [item.getGroupId() for item in enabled_coordinates(half_disabled)] == [1, 3]


def test_extraction_numbers_only_what_is_not_disabled(project: Any, half_disabled: Any) -> None:
    protocol = project.newProtocol(ProtTwinExtractSubtomograms, group=3)
    protocol.inputCoordinates.set(half_disabled)
    assert [item.getObjId() for item in protocol._coordinates("a")] == [3]
    protocol.group.set(2)
    assert "the picks have no group 2" in protocol.validate()[0]


def test_maps_and_masks_that_are_disabled_stay_out(tmp_path: Path) -> None:
    volumes = SetOfVolumes(filename=str(tmp_path / "volumes.sqlite"))
    masks = SetOfTomoMasks(filename=str(tmp_path / "masks.sqlite"))
    for number in (1, 2, 3):
        path = tmp_path / f"{number}.mrc"
        write_mrc(path, np.ones((8, 8, 8)), 5.0)
        volume, mask = Volume(), TomoMask()
        for one in (volume, mask):
            one.setFileName(str(path))
            one.setSamplingRate(5.0)
        mask.setTsId(f"t{number}")
        volumes.setSamplingRate(5.0)
        volumes.append(volume)
        masks.append(mask)
    volumes.write()
    masks.write()
    disable(volumes, 2)
    disable(masks, 1)
    assert [Path(one.getFileName()).name for one in iter_references([Pointer(volumes)])] == ["1.mrc", "3.mrc"]
    assert sorted(_masks_of(masks, ["t1", "t2", "t3"])) == ["t2", "t3"]
