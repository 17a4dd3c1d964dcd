"""Which model is taken: the part of the forms, its checks, and the word for the engine."""

import os
import struct
from typing import Any, List

from pyworkflow.protocol import LEVEL_NORMAL, params

from .. import Plugin
from ..constants import RELEASED_MODEL, TOMOTWIN_ENGINE_MODEL
from ..targets import read_metadata

MODEL_RELEASED, MODEL_TRAINED, MODEL_FILE = range(3)


def define_model_params(
    form: Any, label: str, text: str, condition: str = "True", expertLevel: int = LEVEL_NORMAL
) -> None:
    """Add the choice of a model to a form.

    Parameters
    ----------
    form
        The form.
    label, text
        How the choice is called, and what its help says first.
    condition
        When it is shown.
    expertLevel
        To whom it is shown.
    """
    siteModel = Plugin.getVar(TOMOTWIN_ENGINE_MODEL)
    form.addParam(
        "modelFrom",
        params.EnumParam,
        choices=["released", "trained in this project", "file"],
        default=MODEL_FILE if siteModel else MODEL_RELEASED,
        condition=condition,
        expertLevel=expertLevel,
        label=label,
        help=text
        + " It is the released general model that comes with the software, an output of the protocol *train model*, or "
        "a file.",
    )
    form.addParam(
        "inputModel",
        params.PointerParam,
        pointerClass="TomoTwinModel",
        allowsNull=True,
        condition=f"{condition} and modelFrom == {MODEL_TRAINED}",
        expertLevel=expertLevel,
        label="Trained model",
        help="Output of the protocol *train model*.",
    )
    form.addParam(
        "modelFile",
        params.FileParam,
        allowsNull=True,
        default=siteModel or None,
        condition=f"{condition} and modelFrom == {MODEL_FILE}",
        expertLevel=expertLevel,
        label="Model file",
        help="A model in safetensors format, as `tomotwin train` and `tomotwin adapt` write it. A site can "
        "preset it: TOMOTWIN_ENGINE_MODEL in scipion.conf.",
    )


def validate_model(protocol: Any) -> List[str]:
    """Sentences about what cannot be; an empty list when all is well."""
    if protocol.modelFrom == MODEL_TRAINED and protocol.inputModel.get() is None:
        return ["Model: choose the trained model, or take the released one."]
    path = chosen_model(protocol)
    return [] if path == RELEASED_MODEL else validate_model_file(path)


def validate_model_file(path: str) -> List[str]:
    """A sentence where a file is not there or no model."""
    if not os.path.isfile(path):
        return [f"Model: there is no file {path or 'given'}."]
    try:
        isModel = "card" in read_metadata(path)
    except (KeyError, MemoryError, OverflowError, ValueError, struct.error):  # what is no safetensors file
        isModel = False
    return [] if isModel else [f"Model: {path} is no TomoTwin model (a safetensors file with a model card)."]


def chosen_model(protocol: Any) -> str:
    """What the engine's option ``--model`` takes; empty where a file is wanted and none given."""
    if protocol.modelFrom == MODEL_TRAINED:
        return protocol.inputModel.get().getPath()
    if protocol.modelFrom == MODEL_FILE:
        return protocol.modelFile.get() or ""
    return RELEASED_MODEL
