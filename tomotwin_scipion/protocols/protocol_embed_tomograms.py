"""Protocol *embed tomograms*: tomograms in, dense embeddings on disk out."""

import glob
import os
from typing import Any, Iterable, List

from pyworkflow import BETA
from pyworkflow.protocol import LEVEL_ADVANCED, params
from pyworkflow.utils import cleanPath, makePath
from tomo.objects import SetOfTomograms, Tomogram
from tomo.protocols import ProtTomoBase

from .. import Plugin
from ..constants import (
    CONTRASTS,
    DARK,
    LARGEST_VOXEL_SIZE_A,
    MODEL_VOXEL_SIZE_A,
    OUTPUT_EMBEDDINGS,
    SMALLEST_VOXEL_SIZE_A,
)
from ..convert import link_tomogram, plain_path
from ..enabled import enabled_items
from ..objects import SetOfTomogramEmbeddings, TomogramEmbedding
from .model_choice import chosen_model, define_model_params, validate_model
from .streaming import TwinStreamingProtocol, file_stamp

EMBEDDED = "embedded"


class ProtTwinEmbedTomograms(TwinStreamingProtocol, ProtTomoBase):
    """Embeds tomograms with the TomoTwin network.

    Every place of a tomogram is turned into a vector of 32 numbers that says what is there, whatever its
    orientation; places with the same macromolecule get vectors close to each other. This is the costly part
    of picking and it depends on nothing but the tomogram: it is computed once, kept on disk, and any
    number of targets is then looked for in it within seconds (protocol *reference picking*).

    Tomograms are embedded as they arrive, several at once where there are GPUs for it; *Continue* embeds only what is
    new or missing.
    """

    _label = "embed tomograms"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_EMBEDDINGS: SetOfTomogramEmbeddings}
    _tsIdField = TomogramEmbedding.TS_ID_FIELD
    _isNothing = "No tomogram could be embedded."

    # ------------------------------ form ------------------------------
    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Input")
        self._defineGpuParams(form)
        form.addParam(
            "inputTomograms",
            params.PointerParam,
            pointerClass="SetOfTomograms",
            important=True,
            label="Tomograms",
            help=f"Tomograms of any voxel size from {SMALLEST_VOXEL_SIZE_A:g} to {LARGEST_VOXEL_SIZE_A:g} Å: they are "
            f"rescaled on the fly to the {MODEL_VOXEL_SIZE_A:g} Å/voxel that the network looks at, and picks come back "
            "in the voxels of the tomograms given here. Best are tomograms without denoising and without a filled "
            "missing wedge, since the network was trained on plain back-projections.",
        )
        form.addParam(
            "contrast",
            params.EnumParam,
            choices=["dark", "bright"],
            default=DARK,
            display=params.EnumParam.DISPLAY_HLIST,
            label="Macromolecules are",
            help="Contrast of the tomograms. *dark* on a bright background is the usual way cryo-electron tomograms "
            "look; choose *bright* where the contrast was inverted (as some packages do for subtomogram "
            "averaging). The wrong choice finds next to nothing.",
        )
        define_model_params(form, "Model", "The network's weights.", expertLevel=LEVEL_ADVANCED)
        self._defineParallelParams(form)

    # ------------------------------ steps ------------------------------
    def _outputDigest(self, tsId: str) -> str:
        source = file_stamp(plain_path(self._getTomogram(tsId).getFileName()))
        return self._digest(self._settingsArgs(), file_stamp(chosen_model(self)), source)

    def _insertTomogramSteps(self, tsId: str, prerequisites: List[int]) -> int:
        args = (tsId, self._run)
        embedded = self._insertFunctionStep(self.embedStep, *args, prerequisites=prerequisites, needsGPU=self.usesGpu())
        return self._insertFunctionStep(self.createOutputStep, *args, prerequisites=[embedded], needsGPU=False)

    def embedStep(self, tsId: str, run: str) -> None:
        """Link the tomogram under its tsId and have the engine embed it."""
        try:
            with self._lock:
                digest = self._outputDigest(tsId)
                tomogram = self._getTomogram(tsId)
                # Kept with the embedding, which refers to it: picking looks at the tomogram for gold and the like.
                folder = self._getExtraPath("tomograms")
                makePath(folder)
                path = link_tomogram(tomogram, folder)
                if self._isDone(EMBEDDED, tsId, digest) and self._hasResults(tsId):
                    return
            # What a killed run had begun can be of gigabytes, and is never used.
            cleanPath(*glob.glob(glob.escape(self._getExtraPath()) + f"/.part-*-{tsId}.zarr"))
            args = [path, "--out", self._getExtraPath()] + self._settingsArgs() + self._engineArgs()
            Plugin.runTomotwin(self, "embed", args, gpu=True, expected=self._getZarr(tsId))
            self._setDone(EMBEDDED, tsId, digest)
            self._setFailure(tsId, None)
        except Exception as error:
            self._setDone(EMBEDDED, tsId, None)
            self._setFailure(tsId, error)

    def _filesOf(self, tsId: str) -> List[str]:
        return [self._getZarr(tsId)]

    def _outputItems(self, tsId: str) -> Iterable[TomogramEmbedding]:
        embedding = TomogramEmbedding()
        embedding.setTomogram(self._getTomogram(tsId))
        embedding.setFileName(self._getZarr(tsId))
        return [embedding]

    def _finishOutput(self, output: SetOfTomogramEmbeddings) -> None:
        output.setModel(chosen_model(self))

    # ------------------------------ info ------------------------------
    def _validate(self) -> List[str]:
        errors = self._validateGpu() + validate_model(self)
        tomograms: SetOfTomograms = self.inputTomograms.get()
        samplingRate = tomograms.getSamplingRate()
        if not samplingRate or not SMALLEST_VOXEL_SIZE_A <= samplingRate <= LARGEST_VOXEL_SIZE_A:
            errors.append(
                f"The tomograms' sampling rate is {samplingRate} Å/voxel; it must be between {SMALLEST_VOXEL_SIZE_A:g} "
                f"and {LARGEST_VOXEL_SIZE_A:g}. Correct it where they were imported."
            )
        tsIds = [tomogram.getTsId() for tomogram in enabled_items(tomograms)]
        if None in tsIds or len(set(tsIds)) < len(tsIds):
            errors.append("Every tomogram needs a tsId of its own, and some here have none or share one.")
        missing = [
            tomogram.getFileName()
            for tomogram in enabled_items(tomograms)
            if not os.path.exists(plain_path(tomogram.getFileName()))
        ]
        if missing:
            errors.append(f"{len(missing)} tomogram file(s) are not there, the first is {missing[0]}.")
        return errors

    def _warnings(self) -> List[str]:
        samplingRate = self.inputTomograms.get().getSamplingRate()
        if samplingRate and samplingRate > 1.5 * MODEL_VOXEL_SIZE_A:
            return [
                f"The tomograms have {samplingRate:.1f} Å/voxel, coarser than the model's {MODEL_VOXEL_SIZE_A:g}: "
                "large particles are found, small ones are not. Use a finer reconstruction if there is one."
            ]
        return []

    def _summary(self) -> List[str]:
        output = getattr(self, OUTPUT_EMBEDDINGS, None)
        if output is None:
            return ["Output is not ready yet."] + self._failureSummary()
        summary = [f"Embedded tomograms: *{output.getSize()}* of {self.inputTomograms.get().getSize()}"]
        summary.append(f"Model: *{output.getModel()}*")
        return summary + self._failureSummary()

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_EMBEDDINGS, None)
        if output is None:
            return []
        return [
            f"{output.getSize()} tomograms were rescaled to {MODEL_VOXEL_SIZE_A:g} Å/voxel and embedded densely "
            f"with the {output.getModel()} TomoTwin model."
        ]

    def _citations(self) -> List[str]:
        return ["Rice2023"]

    # ------------------------------ helpers ------------------------------
    def _getTomogram(self, tsId: str) -> Tomogram:
        return self.inputTomograms.get()[{Tomogram.TS_ID_FIELD: tsId}]

    def _settingsArgs(self) -> List[str]:
        """Options of ``tomotwin embed`` that change its result."""
        return [
            "--model",
            chosen_model(self),
            "--voxel-size",
            f"{self.inputTomograms.get().getSamplingRate():g}",
            "--contrast",
            CONTRASTS[self.contrast.get()],
        ]

    def _getZarr(self, tsId: str) -> str:
        return self._getExtraPath(tsId + ".zarr")

    def _createOutput(self) -> SetOfTomogramEmbeddings:
        output = SetOfTomogramEmbeddings.create(self._getPath(), template="embeddings%s.sqlite")
        output.setTomograms(self.inputTomograms)
        output.setModel(chosen_model(self))
        return output
