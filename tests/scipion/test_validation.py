"""What cannot be run is said in a sentence before the run, never by a traceback; no run is launched here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import SHAPE, point, write_mrc
from fake_files import write_header
from pwem.objects import Volume
from pyworkflow.object import Pointer
from test_evaluate_picks import RATE
from test_evaluate_picks import sets as sets
from tomo.objects import TomoAcquisition

from tomotwin_scipion import protocols
from tomotwin_scipion.objects import SetOfTomogramEmbeddings, TomogramEmbedding
from tomotwin_scipion.protocols import ProtTwinCreateMask, ProtTwinEmbedTomograms, ProtTwinReferencePicking


@pytest.mark.parametrize("name", protocols.__all__)
def test_an_empty_form_is_refused_in_sentences_and_has_no_warnings(project: Any, name: str) -> None:
    protocol = project.newProtocol(getattr(protocols, name))
    errors = protocol.validate()
    assert errors or name == "ProtTwinSimulateTomograms", "all others need an input"
    assert not [error for error in errors if "Traceback" in error or "validation failed" in error]
    assert protocol.warnings() == []


@pytest.fixture(scope="module")
def embedded(project: Any, sets: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with embeddings of the tomograms t1 to t3, as a run that is finished leaves them."""
    folder = tmp_path_factory.mktemp("embeddings")
    protocol = project.newProtocol(ProtTwinEmbedTomograms)
    project.saveProtocol(protocol)
    protocol.makePathsAndClean()
    items = SetOfTomogramEmbeddings.create(protocol._getPath())
    items.setTomograms(Pointer(sets, extended="fine"))
    for tomogram in sets.fine.iterItems():
        item = TomogramEmbedding()
        item.setTomogram(tomogram)
        path = folder / f"{tomogram.getTsId()}.zarr"
        path.mkdir()
        item.setFileName(str(path))
        items.append(item)
    protocol._defineOutputs(Embeddings=items)
    protocol._store()
    project._storeProtocol(protocol)
    return protocol


@pytest.fixture
def picking(project: Any, sets: Any, embedded: Any, tmp_path: Path) -> Any:
    """A form of reference picking that is right."""
    volume = Volume()
    write_mrc(tmp_path / "map.mrc", np.ones((8, 8, 8)), 5.0)
    volume.setFileName(str(tmp_path / "map.mrc"))
    volume.setSamplingRate(5.0)
    sets._defineOutputs(map=volume)
    protocol = project.newProtocol(ProtTwinReferencePicking)
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    protocol.inputReferences.append(Pointer(sets, extended="map"))
    assert protocol.validate() == [] and protocol.warnings() == []
    return protocol


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"gpuList": "0 a"}, "GPU IDs: 'a' is none"),
        ({"seed": -1}, "Seed: it cannot be negative"),
        ({"defocusMin": 0.05, "defocusMax": 3.0}, "both ends must lie within 0.1 and 20 µm"),
        ({"tiltMin": 70.0}, "they go from 70 to 60 degrees"),
        ({"tiltMax": 89.0}, "they go from -60 to 89 degrees; they must rise within -85 and 85"),
        ({"dose": 5000.0}, "Total dose: 5000 e/Å^2"),
        ({"tiltStep": 30.0}, "Tilt angles, step: 30°"),
        ({"boxSize": -2}, "cannot be negative"),
        ({"thresholdMode": 1, "threshold": 1.0}, "a similarity is a number from -1 to 1"),
        ({"identifiers": "pdb:4v6x x"}, "'x' names no molecule"),
    ],
)
def test_numbers_that_do_not_go_with_the_rest_are_told(picking: Any, values: dict, sentence: str) -> None:
    for name, value in values.items():
        getattr(picking, name).set(value)
    (error,) = picking.validate()
    assert sentence in error


def test_an_acquisition_that_no_tilt_series_can_have_is_told_and_the_form_overrules_it(
    picking: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquisition = TomoAcquisition(voltage=30.0, angleMin=-90, angleMax=90, step=3, accumDose=100)
    tomogram = SimpleNamespace(
        hasAcquisition=lambda: True, getAcquisition=lambda: acquisition, ctfCorrected=lambda: False
    )
    from tomotwin_scipion.protocols.reference_simulation import acquisition_args, validate_simulation_params

    tilts, voltage = validate_simulation_params(picking, tomogram)
    assert "they go from -90 to 90 degrees" in tilts and "Voltage: 30 kV" in voltage
    picking.tiltMin.set(-50)
    picking.tiltMax.set(55)
    assert validate_simulation_params(picking, tomogram) == [voltage]
    assert acquisition_args(picking, tomogram)[:6] == ["--tilt-min", "-50", "--tilt-max", "55", "--tilt-step", "3"]


def test_files_that_are_gone_and_inputs_that_are_not_there_yet_are_told(
    picking: Any, embedded: Any, tmp_path: Path
) -> None:
    (tmp_path / "map.mrc").unlink()
    (error,) = picking.validate()
    assert "1 file(s) are not there" in error and "map.mrc" in error
    picking.inputReferences.append(Pointer(embedded, extended="nothing"))
    picking.inputExamples.append(Pointer(embedded, extended="nothing"))
    assert picking.validate() == [
        "References: one of them is not there yet.",
        "Example positions: one of the sets is not there yet.",
    ]


def test_a_file_that_is_no_model_is_refused_wherever_it_is_named(
    project: Any, sets: Any, picking: Any, embedded: Any, tmp_path: Path
) -> None:  # fmt: skip
    text, references, model = (tmp_path / name for name in ("text", "references", "model"))
    text.write_text("this is no model, however long the text may be")
    write_header(str(references), "references", {})
    write_header(str(model), "card", {})
    embedding = project.newProtocol(ProtTwinEmbedTomograms, modelFrom=2)
    point(embedding.inputTomograms, sets, "fine")
    for path, good in ((text, False), (references, False), (model, True)):
        embedding.modelFile.set(str(path))
        errors = embedding.validate()
        assert errors == [] if good else "is no TomoTwin model" in errors[0]
    embedded.Embeddings.setModel("/gone/model.safetensors")
    try:
        (error,) = picking.validate()
    finally:
        embedded.Embeddings.setModel("released")
    assert error == "Model: there is no file /gone/model.safetensors."


def test_masks_of_tomograms_that_are_gone_cannot_be_made(
    project: Any, sets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    masking = project.newProtocol(ProtTwinCreateMask, zFirst=2, zLast=SHAPE[0] - 1)
    point(masking.inputTomograms, sets, "fine")
    assert masking.validate() == [] and sets.fine.getSamplingRate() == RATE
    monkeypatch.setattr("tomotwin_scipion.protocols.protocol_create_mask.is_there", lambda item: False)
    (error,) = masking.validate()
    assert "3 tomogram file(s) are not there" in error
