"""Tomograms that arrive while the protocols run, and runs that are killed in the middle and continued: for real, as
processes on a project on disk, with a stand-in for the engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import SHAPE, VOXEL_SIZE_A, planted_tomogram, point, write_mrc
from pwem.objects import SetOfVolumes, Volume
from pwem.protocols import ProtImportVolumes
from pyworkflow.object import Pointer
from test_protocols_in_a_project import positions
from tomo.objects import Coordinate3D, SetOfCoordinates3D, SetOfTomograms, Tomogram
from tomo.protocols import ProtImportTomograms

from tomotwin_scipion.protocols import ProtTwinCreateMask, ProtTwinEmbedTomograms, ProtTwinReferencePicking

PATIENCE_S = 120
PLACES = {"a": (5, 7, 11), "b": (9, 8, 7), "held": (60, 40, 20), "z": (1, 2, 3)}


class Growing:
    """The output of an import that more tomograms are put into."""

    def __init__(self, project: Any, folder: Path) -> None:
        self.project, self.folder = project, folder
        self.protocol = project.newProtocol(ProtImportTomograms, objLabel="growing")
        project.saveProtocol(self.protocol)
        self.protocol.makePathsAndClean()
        self.set = SetOfTomograms.create(self.protocol._getPath(), template="tomograms%s.sqlite")
        self.set.setSamplingRate(VOXEL_SIZE_A)

    def add(self, *names: str) -> None:
        for name in names:
            path = self.folder / f"{name}.mrc"
            write_mrc(path, planted_tomogram({PLACES[name]: 1}), VOXEL_SIZE_A)
            tomogram = Tomogram()
            tomogram.setFileName(str(path))
            tomogram.setTsId(name)
            tomogram.setSamplingRate(VOXEL_SIZE_A)
            self.set.append(tomogram)
        self.store()

    def store(self, state: int | None = None) -> None:
        if state is not None:
            self.set.setStreamState(state)
        self.set.write()
        if self.protocol.getOutputsSize() == 0:
            self.protocol._defineOutputs(Tomograms=self.set)
        self.protocol._store(self.set)
        self.protocol._store()
        self.project._storeProtocol(self.protocol)


@pytest.fixture
def growing(project: Any, tmp_path: Path) -> Growing:
    return Growing(project, tmp_path)


@pytest.fixture(scope="module")
def target(project: Any, tmp_path_factory: pytest.TempPathFactory) -> Pointer:
    """A set with one map."""
    path = tmp_path_factory.mktemp("maps") / "target.mrc"
    write_mrc(path, np.ones((8, 8, 8)), 5.0)
    protocol = project.newProtocol(ProtImportVolumes)
    project.saveProtocol(protocol)
    protocol.makePathsAndClean()
    volume = Volume()
    volume.setFileName(str(path))
    volume.setSamplingRate(5.0)
    volumes = SetOfVolumes.create(protocol._getPath())
    volumes.setSamplingRate(5.0)
    volumes.append(volume)
    volumes.write()
    protocol._defineOutputs(outputVolumes=volumes)
    protocol._store()
    project._storeProtocol(protocol)
    return Pointer(protocol, extended="outputVolumes")


def new_embedding(project: Any, growing: Growing, threads: int = 2) -> Any:
    gpus = " ".join(str(gpu) for gpu in range(max(threads - 1, 1)))
    protocol = project.newProtocol(ProtTwinEmbedTomograms, numberOfThreads=threads, gpuList=gpus)
    point(protocol.inputTomograms, growing.protocol, "Tomograms")
    return protocol


def new_picking(project: Any, embedding: Any, target: Pointer, threads: int = 2) -> Any:
    protocol = project.newProtocol(ProtTwinReferencePicking, numberOfThreads=threads)
    point(protocol.inputEmbeddings, embedding, "Embeddings")
    protocol.inputReferences.append(target)
    return protocol


def start(project: Any, protocol: Any) -> None:
    """Launch a run and go on meanwhile."""
    assert protocol.validate() == []
    project.launchProtocol(protocol, wait=False, force=True)


def wait_until(true: Callable[[], Any], every_s: float = 0.5) -> None:
    for _ in range(round(PATIENCE_S / every_s)):
        if true():
            return
        time.sleep(every_s)
    raise AssertionError("this did not become true: see the line above")


def now(project: Any, protocol: Any) -> Any:
    """The run as it is at the moment, as Scipion's window sees it."""
    fresh = project.getProtocol(protocol.getObjId(), fromRuns=False)
    project._updateProtocol(fresh)
    return fresh


def tomograms_of(project: Any, protocol: Any, output: str) -> list[str]:
    """Tomograms in an output as it is at the moment; it must be open for more."""
    items = getattr(now(project, protocol), output, None)
    if items is None:
        return []
    items.loadProperty("_streamState")
    assert items.isStreamOpen()
    return sorted(items.getTSIds())


def kill(project: Any, protocol: Any) -> Any:
    """End a run and all that it started without a warning, as a power failure does; Scipion then finds it dead."""
    process = psutil.Process(now(project, protocol).getPid())
    for one in [*process.children(recursive=True), process]:
        one.kill()
    psutil.wait_procs([process], timeout=PATIENCE_S)
    wait_until(lambda: now(project, protocol).isFailed())
    return now(project, protocol)


def resumed(protocol: Any) -> Any:
    protocol.runMode.set(0)
    return protocol


def test_tomograms_are_embedded_and_picked_as_they_arrive_and_outputs_close_when_the_input_does(
    project: Any, growing: Growing, target: Pointer, calls: Any
) -> None:
    growing.set.setStreamState(SetOfTomograms.STREAM_OPEN)
    growing.add("z")
    embedding = new_embedding(project, growing)
    start(project, embedding)
    wait_until(lambda: tomograms_of(project, embedding, "Embeddings") == ["z"])
    embedding = now(project, embedding)
    assert embedding.isRunning()

    picking = new_picking(project, embedding, target, threads=1)
    start(project, picking)
    wait_until(lambda: tomograms_of(project, picking, "output3DCoordinates") == ["z"])
    wait_until(lambda: "*1*  target" in "\n".join(now(project, picking)._summary()))  # who looks sees names and numbers
    growing.add("a", "b")
    wait_until(lambda: tomograms_of(project, picking, "output3DCoordinates") == ["a", "b", "z"])
    assert now(project, embedding).isRunning() and now(project, picking).isRunning()

    growing.store(SetOfTomograms.STREAM_CLOSED)
    wait_until(lambda: not now(project, embedding).isActive() and not now(project, picking).isActive())
    embedding, picking = now(project, embedding), now(project, picking)
    assert embedding.isFinished() and picking.isFinished()
    assert embedding.Embeddings.isStreamClosed() and picking.output3DCoordinates.isStreamClosed()
    assert positions(picking.output3DCoordinates) == {tsId: {PLACES[tsId]: 1} for tsId in "abz"}
    names = [call[0] for call in calls()]
    assert [names.count(name) for name in ("embed", "reference", "locate", "pick")] == [3, 1, 3, 3]
    assert "*3 picks* in 3 tomograms" in picking._summary()[0]


def test_references_of_example_positions_wait_for_the_tomogram_of_the_positions(
    project: Any, growing: Growing, calls: Any
) -> None:
    growing.set.setStreamState(SetOfTomograms.STREAM_OPEN)
    growing.add("a")
    embedding = new_embedding(project, growing)
    point(embedding.inputTomograms, growing.protocol, "Tomograms")
    picking = project.newProtocol(ProtTwinReferencePicking)
    examples = SetOfCoordinates3D.create(str(growing.folder), suffix="examples")
    place = Coordinate3D()
    place.setTomoId("b")
    examples.append(place)
    examples.write()
    picking.inputExamples.append(examples)
    assert not picking._isReady(["a"]) and picking._isReady(["a", "b", "z"])


def test_a_killed_run_goes_on_with_what_is_missing_and_added_tomograms_add_only_theirs(
    project: Any, launch: Any, growing: Growing, target: Pointer, calls: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    monkeypatch.setenv("FAKE_TOMOTWIN_HOLD", str(hold))

    def called(command: str, since: int = 0) -> list[str]:
        """Tomograms with which a command was called."""
        return sorted(Path(call[1]).name.split(".")[0].split("_")[0] for call in calls()[since:] if call[0] == command)

    growing.add("z", "held", "a")
    others = ["a", "z"]  # they are done while the third hangs
    embedding = new_embedding(project, growing, threads=3)
    hold.write_text("embed")
    start(project, embedding)
    wait_until(lambda: called("embed") == sorted([*others, "held"]))
    wait_until(lambda: tomograms_of(project, embedding, "Embeddings") == others)
    embedding = kill(project, embedding)
    log = Path(embedding.getStdoutLog()).read_text()
    assert [f"CUDA_VISIBLE_DEVICES={gpu} " in log for gpu in range(3)] == [True, True, False]
    leftover = Path(embedding._getExtraPath(".part-0a1b2c3d-held.zarr"))
    leftover.mkdir()
    hold.unlink()
    before = len(calls())
    embedding = launch(resumed(embedding))
    assert called("embed", before) == ["held"]
    assert sorted(embedding.Embeddings.getTSIds()) == ["a", "held", "z"] and embedding.Embeddings.getSize() == 3
    assert embedding.Embeddings.isStreamClosed() and not leftover.exists()

    picking = new_picking(project, embedding, target, threads=3)
    hold.write_text("locate")
    start(project, picking)
    wait_until(lambda: called("locate") == sorted([*others, "held"]))
    wait_until(lambda: tomograms_of(project, picking, "output3DCoordinates") == others)
    picking = kill(project, picking)
    hold.unlink()
    before = len(calls())
    picking = launch(resumed(picking))
    assert called("reference", before) == []
    assert called("locate", before) == called("pick", before) == ["held"]
    assert positions(picking.output3DCoordinates) == {tsId: {PLACES[tsId]: 1} for tsId in ("a", "held", "z")}

    growing.add("b")  # in the order of names it comes between the others
    before = len(calls())
    embedding = launch(resumed(embedding))
    point(picking.inputEmbeddings, embedding, "Embeddings")
    picking = launch(resumed(picking))
    assert called("embed", before) == called("locate", before) == called("pick", before) == ["b"]
    assert called("reference", before) == []
    assert positions(picking.output3DCoordinates) == {tsId: {PLACES[tsId]: 1} for tsId in PLACES}
    assert picking.output3DCoordinates.getSize() == 4


def test_a_tomogram_that_has_left_the_input_leaves_the_output_and_a_changed_one_is_done_again(
    project: Any, launch: Any, growing: Growing, calls: Any
) -> None:
    growing.add("a", "b", "z")
    masking = project.newProtocol(ProtTwinCreateMask, numberOfThreads=1, zFirst=3, zLast=9)
    point(masking.inputTomograms, growing.protocol, "Tomograms")
    masking = launch(masking)
    assert sorted(masking.TomoMasks.getTSIds()) == ["a", "b", "z"]
    write_mrc(growing.folder / "b.mrc", planted_tomogram({PLACES["z"]: 1}), VOXEL_SIZE_A)
    mapper = growing.set._getMapper()
    (gone,) = [item.getObjId() for item in growing.set.iterItems(where="_tsId='z'")]
    mapper.db.deleteObject(gone)
    growing.set._size.set(2)
    growing.store()
    before = len(calls())
    masking = launch(resumed(masking))
    assert [Path(call[1]).name for call in calls()[before:]] == ["b.mrc"]
    assert sorted(masking.TomoMasks.getTSIds()) == ["a", "b"] and masking.TomoMasks.getSize() == 2
    assert tuple(masking.TomoMasks.getDimensions()) == SHAPE[::-1]
