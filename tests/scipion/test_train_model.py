"""Protocol *train model* in a real Scipion project, with a stand-in for the engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import VOXEL_SIZE_A, point, write_mrc
from pwem import Domain
from pwem.protocols import ProtImportVolumes
from pyworkflow.object import Pointer
from pyworkflow.viewer import DESKTOP_TKINTER
from test_protocols_in_a_project import PLANTED, embedded, picked, references, tomograms  # noqa: F401
from test_reference_picking import keep

from tomotwin_scipion.objects import TomoTwinModel
from tomotwin_scipion.protocols import ProtTwinEmbedTomograms, ProtTwinTrainModel
from tomotwin_scipion.viewers import TwinTrainingViewer
from tomotwin_view.star import read_table

ADAPT, SIMULATED, TOMOGRAMS = range(3)
SHORT = {"steps": 40, "validateEvery": 20, "workers": 0}


def new_training(project: Any, task: int, *coordinates: Pointer, **values: Any) -> Any:
    protocol = project.newProtocol(ProtTwinTrainModel, task=task, **values)
    for pointer in coordinates:
        protocol.inputCoordinates.append(pointer)
    return protocol


@pytest.fixture(scope="module")
def by_hand(embedded: Any, picked: Any) -> Pointer:  # noqa: F811
    """All positions, five, as no run of the plugin has named them; their box is 14 voxels."""
    return keep(embedded, "trainingPositions", picked.output3DCoordinates, lambda *place: True)


@pytest.fixture(scope="module")
def adapted(project: Any, launch: Any, by_hand: Any) -> Any:
    return launch(new_training(project, ADAPT, by_hand, diameter=150.0, allListed=True, keep=5.0))


def test_adapting_gets_the_tomograms_under_their_tsids_and_all_positions(adapted: Any, tomograms: Any) -> None:  # noqa: F811
    folder = adapted._getExtraPath("tomograms")
    assert sorted(path.name for path in Path(folder).iterdir()) == ["TS_2_nd.mrc", "first.mrc"]
    sources = {item.getTsId(): item.getFileName() for item in tomograms.Tomograms.iterItems()}
    for tsId in PLANTED:
        assert Path(folder, tsId + ".mrc").resolve() == Path(sources[tsId]).resolve()
    rows = read_table(adapted._getExtraPath("positions", "examples.star"), "particles")
    found = {(row["rlnTomoName"], *(float(row["rlnCoordinate" + axis]) for axis in "XYZ")) for row in rows}
    assert found == {(tsId, *place) for tsId, places in PLANTED.items() for place in places}
    assert {float(row["tomotwinDiameterAngst"]) for row in rows} == {150.0}
    assert "examples: 5 positions" in "\n".join(adapted._summary())
    assert "adapted to examples (5 positions)" in adapted._methods()[0]


def test_an_adapted_model_is_an_output_that_embedding_takes(
    project: Any, launch: Any, adapted: Any, tomograms: Any, by_hand: Any, calls: Any  # noqa: F811
) -> None:  # fmt: skip
    model = adapted.Model
    assert isinstance(model, TomoTwinModel) and model.getPath() == adapted._getExtraPath("adapted.safetensors")
    embedding = project.newProtocol(ProtTwinEmbedTomograms, numberOfThreads=1, modelFrom=1)
    point(embedding.inputTomograms, tomograms, "Tomograms")
    point(embedding.inputModel, adapted, "Model")
    embedding = launch(embedding)
    assert all(call[call.index("--model") + 1] == model.getPath() for call in calls())
    assert embedding.Embeddings.getModel() == model.getPath()

    # A model to start from, too; each group of a picking run is a kind of its own then, with the size measured there.
    before = len(calls())
    again = new_training(project, ADAPT, by_hand, modelFrom=1, contrast=1)
    point(again.inputModel, adapted, "Model")
    again = launch(again)
    (line,) = (" ".join(call) for call in calls()[before:])
    assert f"--model {model.getPath()} --steps 60 --keep 3 --seed 0" in line and "--bright" in line
    assert "--all-listed" not in line and f"--voxel-size {VOXEL_SIZE_A:g}" in line
    rows = read_table(again._getExtraPath("positions", "examples.star"), "particles")
    assert {float(row["tomotwinDiameterAngst"]) for row in rows} == {100.0}  # they say so themselves


@pytest.fixture(scope="module")
def interrupted(project: Any, launch: Any) -> Any:
    """A training that broke off after step 20 and was continued."""
    protocol = new_training(
        project, SIMULATED, fromModel=False, moreSettings="break.at = 20\nloss.temperature = 0.05", **SHORT
    )
    protocol = launch(protocol, expect="failed")
    assert "Step *20*" in protocol._summary()[0]
    Path(protocol._getExtraPath("mended")).touch()
    protocol.runMode.set(0)
    return launch(protocol)


def test_a_training_that_broke_off_goes_on_and_the_best_model_is_the_output(interrupted: Any) -> None:
    steps = [line.split(",")[0] for line in Path(interrupted._getExtraPath("training", "log.csv")).read_text().split()]
    assert steps == ["step", "10", "20", "30", "40"]
    assert interrupted.Model.getPath() == interrupted._getExtraPath("training", "best.safetensors")
    text = "\n".join(interrupted._summary())
    assert "Step *40*: loss 0.250; of 88 % of the windows" in text
    assert "Median F1 of 2 species seen in training: *0.72* at step 40" in text
    assert "Median F1 of 1 species unseen in training: *0.50* at step 40" in text
    assert "for 40 steps, from random weights" in interrupted._methods()[0]


def test_the_viewer_draws_loss_accuracy_and_f1_and_reads_again_what_has_come(
    project: Any, interrupted: Any, adapted: Any
) -> None:
    assert Domain.findViewers(interrupted, DESKTOP_TKINTER)[0] is TwinTrainingViewer
    assert TwinTrainingViewer in Domain.findViewers(interrupted.Model, DESKTOP_TKINTER)
    (view,) = TwinTrainingViewer(project=project)._visualize(interrupted.Model)
    loss, accuracy, f1 = view.axes
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [[10, 1], [20, 0.5], [30, 10 / 30], [40, 0.25]], rtol=1e-5)
    np.testing.assert_allclose(accuracy.lines[0].get_ydata()[-1], 0.875)
    medians = {line.get_label(): line.get_xydata().tolist() for line in f1.lines if "median" in line.get_label()}
    np.testing.assert_allclose(medians["seen, median"], [[20, 0.92], [40, 0.72]])
    np.testing.assert_allclose(medians["unseen, median"], [[20, 0.7], [40, 0.5]])
    with open(interrupted._getExtraPath("training", "log.csv"), "a") as file:
        file.write("50,0.2,0.9,500,0.001,1,0.1\n60,0.1")  # the last line is being written
    view.redraw(interrupted._getTrainingFolder())
    assert loss.lines[0].get_xdata().tolist() == [10, 20, 30, 40, 50]
    view.close()
    (message,) = TwinTrainingViewer(project=project)._visualize(adapted)
    assert "an adapted model has none" in message.getMessage() and "examples: 5 positions" in message.getMessage()


def test_molecules_of_the_project_become_a_library(
    project: Any, launch: Any, tmp_path: Path, calls: Any
) -> None:  # fmt: skip
    for name in "abcdef":
        write_mrc(tmp_path / f"{name}.mrc", np.ones((8, 8, 8)), 1.0)
    maps = launch(
        project.newProtocol(ProtImportVolumes, filesPath=str(tmp_path), filesPattern="*.mrc", samplingRate=5.0)
    )
    values = {"molecules": 1, "heldOut": 3, "recipe": 1, "learningRate": 0.001, "species": 4, "loss": 2}
    protocol = new_training(project, SIMULATED, **{**SHORT, **values, "validateEvery": 0})
    protocol.inputMolecules.append(Pointer(maps, extended="outputVolumes"))
    (error,) = protocol.validate()
    assert "6 are given; at least 4 are needed beside those held out" in error
    protocol.heldOut.set(2)
    protocol = launch(protocol)
    library = protocol._getExtraPath("library.npz")
    assert json.loads(Path(library).read_text()) == {"molecules": [f"{name}.mrc" for name in "abcdef"], "held_out": 2}
    (line,) = (" ".join(call) for call in calls() if call[0] == "train")
    assert (
        "--recipe paper --steps 40 --validate-every 0 --workers 0 --learning-rate 0.001 --species 4 --loss triplet"
        in line
    )
    assert f"--from released --out {protocol._getExtraPath('training')} --library {library}" in line
    assert protocol.Model.getPath().endswith("training/model.safetensors")  # the last, as none was validated


def test_tomograms_with_positions_train_with_a_share_of_simulated_ones_and_a_settings_file_comes_first(
    project: Any, launch: Any, picked: Any, tmp_path: Path, calls: Any  # noqa: F811
) -> None:  # fmt: skip
    (tmp_path / "my.toml").write_text("[training]\nsteps = 10\n")
    everything = Pointer(picked, extended="output3DCoordinates")
    protocol = new_training(project, TOMOGRAMS, everything, liveShare=0.25, settingsFile=str(tmp_path / "my.toml"))
    protocol.moreSettings.set("training.steps = 10")
    protocol = launch(protocol, expect="failed")  # the stand-in reads no settings file, and so has no steps
    (call,) = (call for call in calls() if call[0] == "train")
    line = " ".join(call)
    assert call[1] == str(tmp_path / "my.toml") and "--steps" not in line and "--recipe" not in line
    folder = protocol._getExtraPath("positions")
    assert f"--positions {folder}/1abc.star {folder}/2_def.star --voxel-size 8" in line
    assert "--live-share 0.25" in line and "--set training.steps = 10" in line


@pytest.mark.parametrize(
    ("task", "values", "sentence"),
    [
        (ADAPT, {"adaptSteps": 0}, "Steps: at least 1"),
        (ADAPT, {"keep": -1.0}, "cannot be negative"),
        (ADAPT, {"modelFrom": 2, "modelFile": "/nowhere.safetensors"}, "there is no file /nowhere.safetensors"),
        (ADAPT, {"modelFrom": 1}, "choose the trained model"),
        (ADAPT, {"diameter": -1.0}, "Particle diameter: it cannot be negative"),
        (TOMOGRAMS, {"liveShare": 1.0}, "Share of simulated tomograms"),
        (TOMOGRAMS, {"settingsFile": "/nowhere.toml"}, "there is no file /nowhere.toml"),
        (SIMULATED, {"molecules": 2}, "there is no file given"),
        (SIMULATED, {"learningRate": 0.0}, "Learning rate"),
        (SIMULATED, {"species": 1}, "Species in a step"),
        (SIMULATED, {"moreSettings": "temperature = 3"}, "'temperature = 3' is not of the form"),
        (SIMULATED, {"seed": -1}, "Seed"),
        (SIMULATED, {"gpuList": ""}, "GPU IDs is empty"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence_before_the_run(
    project: Any, by_hand: Any, task: int, values: dict, sentence: str
) -> None:
    protocol = new_training(project, task, by_hand, **values)
    (error,) = protocol.validate()
    assert sentence in error


def test_a_run_without_positions_or_with_too_few_is_refused(project: Any, embedded: Any, picked: Any) -> None:  # noqa: F811
    (error,) = new_training(project, ADAPT).validate()
    assert "give at least one set" in error
    few = keep(embedded, "few", picked.output3DCoordinates, lambda tsId, *xyz: tsId == "first")
    (error,) = new_training(project, ADAPT, few).validate()
    assert "there are 3 of examples, and at least 5 are needed" in error
    everything = Pointer(picked, extended="output3DCoordinates")  # two of one kind, three of the other
    (error,) = new_training(project, ADAPT, everything).validate()
    assert "there are 2 of 1abc" in error
