"""Protocol *create mask*: tomograms in, masks of the specimen out."""

import os
from typing import Any, Iterable, List

import mrcfile
from pyworkflow import BETA
from pyworkflow.protocol import params
from pyworkflow.utils import cleanPath, makePath
from tomo.objects import SetOfTomoMasks, Tomogram, TomoMask
from tomo.protocols import ProtTomoBase

from .. import Plugin
from ..constants import CONTRASTS, DARK, OUTPUT_MASKS
from ..convert import link_tomogram, plain_path
from ..enabled import enabled_items, ts_ids
from .region_form import (
    SWITCHES,
    define_region_params,
    region_args,
    region_settings,
    validate_region_params,
    warn_of_region_params,
)
from .streaming import TwinStreamingProtocol, file_stamp


class ProtTwinCreateMask(TwinStreamingProtocol, ProtTomoBase):
    """Finds the specimen in tomograms, and writes it as masks.

    The specimen is what lies between the empty spaces above and below it, without gold beads, ice crystals and carbon
    film. The masks are 1 there and 0 elsewhere. The protocol *reference picking* takes them, as they are or edited, and so
    does other software; it can also find the same by itself, without masks being written.
    """

    _label = "create mask"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_MASKS: SetOfTomoMasks}
    _isNothing = "No mask could be made."

    # ------------------------------ form ------------------------------
    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Input")
        form.addParam(
            "inputTomograms",
            params.PointerParam,
            pointerClass="SetOfTomograms",
            important=True,
            label="Tomograms",
            help="Tomograms of any voxel size. Their masks have the same size in voxels.",
        )
        form.addParam(
            "contrast",
            params.EnumParam,
            choices=CONTRASTS,
            default=DARK,
            display=params.EnumParam.DISPLAY_HLIST,
            label="Macromolecules are",
            help="Contrast of the tomograms: *dark* on a bright background, as is usual, or *bright*. Gold is looked for as what "
            "is darkest, or brightest.",
        )
        define_region_params(form, found=True)
        form.addParallelSection(threads=2, mpi=0)

    # ------------------------------ steps ------------------------------
    def _outputDigest(self, tsId: str) -> str:
        source = file_stamp(plain_path(self._getTomogram(tsId).getFileName()))
        return self._digest(self.contrast.get(), region_settings(self), source)

    def _insertTomogramSteps(self, tsId: str, prerequisites: List[int]) -> int:
        args = (tsId, self._run)
        made = self._insertFunctionStep(self.maskStep, *args, prerequisites=prerequisites, needsGPU=False)
        return self._insertFunctionStep(self.createOutputStep, *args, prerequisites=[made], needsGPU=False)

    def maskStep(self, tsId: str, run: str) -> None:
        """Have the engine find the specimen of one tomogram."""
        try:
            with self._lock:
                tomogram = self._getTomogram(tsId)
                region = region_args(self, tsId)
                folder = self._getTmpPath("tomograms")
                makePath(folder)
                path = link_tomogram(tomogram, folder)
            mask = self._getMask(tsId)
            cleanPath(mask)
            args = [path, "--out", mask, "--voxel-size", f"{tomogram.getSamplingRate():g}"]
            args += ["--contrast", CONTRASTS[self.contrast.get()]]
            Plugin.runTomotwin(self, "mask", args + region, expected=mask)
            self._setFailure(tsId, None)
        except Exception as error:
            self._setFailure(tsId, error)

    def _filesOf(self, tsId: str) -> List[str]:
        return [self._getMask(tsId)]

    def _outputItems(self, tsId: str) -> Iterable[TomoMask]:
        tomogram, mask = self._getTomogram(tsId), TomoMask()
        mask.copyInfo(tomogram)
        mask.setFileName(self._getMask(tsId))
        mask.setVolName(tomogram.getFileName())
        return [mask]

    # ------------------------------ info ------------------------------
    def _validate(self) -> List[str]:
        tomograms = self.inputTomograms.get()
        errors = validate_region_params(self, tomograms)
        missing = [item.getFileName() for item in enabled_items(tomograms) if not is_there(item)]
        if missing:
            errors.append(f"{len(missing)} tomogram file(s) are not there, the first is {missing[0]}.")
        isAny = self.useMasks or self.zFirst.get() is not None
        if not isAny and not any(getattr(self, name) for name in SWITCHES.values()):
            errors.append("Region: choose at least one thing by which it is found; else the mask is everything.")
        return errors

    def _warnings(self) -> List[str]:
        return warn_of_region_params(self, ts_ids(self.inputTomograms.get()))

    def _summary(self) -> List[str]:
        output = getattr(self, OUTPUT_MASKS, None)
        if output is None:
            return ["Output is not ready yet."] + self._failureSummary()
        summary = [f"Masks: *{output.getSize()}* of {self.inputTomograms.get().getSize()} tomograms; of each is taken:"]
        summary += [f"  {mask.getTsId()}:  {100 * masked_share(mask):.0f} %" for mask in enabled_items(output)]
        return summary + self._failureSummary()

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_MASKS, None)
        if output is None:
            return []
        parts = {
            "autoSlab": "specimen between empty spaces",
            "excludeGold": "no gold",
            "excludeCarbon": "no carbon film",
        }
        found = [text for name, text in parts.items() if getattr(self, name)]
        return [
            f"Masks of {output.getSize()} tomograms were made automatically ({', '.join(found) or 'by planes and mask'})."
        ]

    def _citations(self) -> List[str]:
        return ["Rice2023"]

    # ------------------------------ helpers ------------------------------
    def _getTomogram(self, tsId: str) -> Tomogram:
        return self.inputTomograms.get()[{Tomogram.TS_ID_FIELD: tsId}]

    def _getMask(self, tsId: str) -> str:
        return self._getExtraPath(tsId + "_mask.mrc")

    def _createOutput(self) -> SetOfTomoMasks:
        output = SetOfTomoMasks.create(self._getPath(), template="tomomasks%s.sqlite")
        output.copyInfo(self.inputTomograms.get())
        return output


def is_there(tomogram: Tomogram) -> bool:
    """Whether the file of a tomogram is."""
    return os.path.exists(plain_path(tomogram.getFileName()))


def masked_share(mask: TomoMask) -> float:
    """Share of the voxels that the engine's mask takes: it is 0 and 1, and the header says its mean."""
    with mrcfile.open(mask.getFileName(), permissive=True, header_only=True) as file:
        return float(file.header.dmean)
