"""Protocol *extract subtomograms*: coordinates in, boxes cut out around them with their orientations out."""

import os
import re
from typing import Any, List

from pwem.objects import Transform
from pyworkflow import BETA
from pyworkflow.object import String
from pyworkflow.protocol import LEVEL_ADVANCED, params
from pyworkflow.utils import cleanPath, makePath
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import Coordinate3D, SetOfSubTomograms, SubTomogram, Tomogram
from tomo.protocols import ProtTomoBase

from tomotwin_view.star import read_table

from .. import Plugin
from ..constants import BOX_ROOM, CONTRASTS, DARK, OUTPUT_SUBTOMOGRAMS
from ..convert import link_tomogram, plain_path, write_positions
from ..enabled import enabled_coordinates
from .positions_form import chosen_group, define_positions_params, tomograms_of, validate_positions
from .streaming import TwinStreamingProtocol, file_stamp

PARTICLES_FILE = "particles.star"
SMALLEST_BOX, LARGEST_BOX = 16, 1024


class ProtTwinExtractSubtomograms(TwinStreamingProtocol, ProtTomoBase):
    """Cuts boxes out of tomograms around picks, for averaging and classification.

    Each subtomogram has the orientation of its coordinate (see *orient picks*) and lies with the particle in its middle, to
    parts of a voxel. With them comes what the tilts have measured (missing wedge) as RELION 3 wants it: its averaging
    protocol weights by it when given the extra parameters _--ctf --3d_rot_. In each tomogram's folder the file
    _particles.star_ does the same from the shell.
    """

    _label = "extract subtomograms"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_SUBTOMOGRAMS: SetOfSubTomograms}
    _streamInput = "inputCoordinates"
    _tsIdField = SubTomogram.COORD_VOL_NAME_FIELD
    _isNothing = "No subtomogram could be cut out."

    # ------------------------------ form ------------------------------
    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Input")
        define_positions_params(form)
        form.addParam(
            "boxSize",
            params.IntParam,
            default=0,
            label="Box size (voxels)",
            help="Edge of the boxes, an even number of voxels of the tomograms they are cut from. 0 takes the box size of the "
            f"picks, which is {BOX_ROOM:g} times the particle's diameter where this software picked.",
        )
        form.addParam(
            "contrast",
            params.EnumParam,
            choices=CONTRASTS,
            default=DARK,
            display=params.EnumParam.DISPLAY_HLIST,
            label="Macromolecules in the tomograms are",
            help="*dark* on a bright background, as is usual, or *bright*.",
        )
        form.addParam(
            "invert",
            params.BooleanParam,
            default=True,
            label="Make them bright?",
            help="As RELION, EMAN and Dynamo want them.",
        )
        form.addParam(
            "normalise",
            params.BooleanParam,
            default=True,
            expertLevel=LEVEL_ADVANCED,
            label="Normalise?",
            help="Mean 0 and deviation 1 outside the particle, as RELION wants it.",
        )
        form.addParallelSection(threads=2, mpi=0)

    # ------------------------------ steps ------------------------------
    def _insertTomogramSteps(self, tsId: str, prerequisites: List[int]) -> int:
        args = (tsId, self._run)
        done = self._insertFunctionStep(self.extractStep, *args, prerequisites=prerequisites, needsGPU=False)
        return self._insertFunctionStep(self.createOutputStep, *args, prerequisites=[done], needsGPU=False)

    def _filesOf(self, tsId: str) -> List[str]:
        table, folder = self._getParticlesFile(tsId), self._getFolder(tsId)
        if not os.path.exists(table):
            return [table]
        rows = read_table(table, "particles")
        return [os.path.join(folder, row[name]) for row in rows for name in ("rlnImageName", "rlnCtfImage")]

    def extractStep(self, tsId: str, run: str) -> None:
        """Have the engine cut out the subtomograms of one tomogram."""
        try:
            with self._lock:
                tomogram = self._getTomogram(tsId)
                folder = self._getTmpPath("tomograms")
                makePath(folder)
                path = link_tomogram(tomogram, folder)
                picks = self._getExtraPath(tsId + "_picks.star")
                names = {chosen_group(self): "particle"}
                sampling = tomogram.getSamplingRate()
                write_positions(self.inputCoordinates.get(), picks, sampling, [tsId], names, oriented=True)
                args = self._settingsArgs(tomogram)
            cleanPath(self._getFolder(tsId))
            args = [picks, "--tomograms", path, "--out", self._getFolder(tsId), "--centre"] + args
            Plugin.runTomotwin(self, "extract", args, expected=self._getParticlesFile(tsId))
            self._setFailure(tsId, None)
        except Exception as error:
            self._setFailure(tsId, error)

    # ------------------------------ info ------------------------------
    def _validate(self) -> List[str]:
        errors = validate_positions(self)
        if errors:
            return errors
        box = self._getBoxSize()
        if box % 2 or not SMALLEST_BOX <= box <= LARGEST_BOX:
            errors.append(f"Box size: {box} voxels; give an even number within {SMALLEST_BOX} and {LARGEST_BOX}.")
        return errors

    def _summary(self) -> List[str]:
        output = getattr(self, OUTPUT_SUBTOMOGRAMS, None)
        if output is None:
            return ["Output is not ready yet."] + self._failureSummary()
        total = self.inputCoordinates.get().getSize()
        summary = [f"*{output.getSize()} subtomograms* of {total} picks, boxes of {self._getBoxSize()} voxels"]
        if not output.hasAlignment3D():
            summary.append("The picks have no orientations: run *orient picks* first to average them as they are.")
        return summary + self._failureSummary()

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_SUBTOMOGRAMS, None)
        if output is None:
            return []
        return [f"{output.getSize()} subtomograms of {self._getBoxSize()} voxels were cut out."]

    # ------------------------------ helpers ------------------------------
    def _getBoxSize(self) -> int:
        if self.boxSize.get():
            return self.boxSize.get()
        coordinates = self.inputCoordinates.get()
        factor = coordinates.getSamplingRate() / tomograms_of(self).getSamplingRate()
        return max(2 * round((coordinates.getBoxSize() or 0) * factor / 2), SMALLEST_BOX)

    def _settingsArgs(self, tomogram: Tomogram) -> List[str]:
        """Options of ``tomotwin extract`` that change its result."""
        args = ["--box", str(self._getBoxSize()), "--contrast", CONTRASTS[self.contrast.get()]]
        args += ["--voxel-size", f"{tomogram.getSamplingRate():g}"]
        args += [] if self.invert else ["--keep-contrast"]
        args += [] if self.normalise else ["--no-normalising"]
        if tomogram.hasAcquisition():
            acquisition = tomogram.getAcquisition()
            if acquisition.getAngleMin() != acquisition.getAngleMax():  # else nobody has filled them in
                args += ["--tilt-min", f"{acquisition.getAngleMin():g}", "--tilt-max", f"{acquisition.getAngleMax():g}"]
            if acquisition.getVoltage():
                args += ["--voltage", f"{acquisition.getVoltage():g}"]
        return args

    def _outputDigest(self, tsId: str) -> str:
        tomogram = self._getTomogram(tsId)
        coordinates = [
            [*item.getPosition(BOTTOM_LEFT_CORNER), item.getMatrix().tolist(), item.getObjId()]
            for item in self._coordinates(tsId)
        ]
        stamp = file_stamp(plain_path(tomogram.getFileName()))
        return self._digest(stamp, coordinates, chosen_group(self), self._settingsArgs(tomogram))

    def _coordinates(self, tsId: str) -> List[Coordinate3D]:
        """The wanted picks of a tomogram, in the order in which they are written for the engine."""
        coordinates = self.inputCoordinates.get()
        precedent = coordinates.getPrecedents()[{Tomogram.TS_ID_FIELD: tsId}]
        found = [item.clone() for item in enabled_coordinates(coordinates, precedent)]
        for item in found:
            item.setVolume(precedent)
        return [item for item in found if item.getGroupId() == chosen_group(self)]

    def _outputItems(self, tsId: str) -> List[SubTomogram]:
        tomogram, coordinates = self._getTomogram(tsId), self._coordinates(tsId)
        made = []
        for row in read_table(self._getParticlesFile(tsId), "particles"):
            # Boxes are numbered by the picks, from 1 on; some are left out.
            (number,) = re.findall(r"(\d+)\.mrc$", row["rlnImageName"])
            coordinate = coordinates[int(number) - 1]
            wedge = os.path.join(self._getFolder(tsId), row["rlnCtfImage"])
            coordinate._3dcftMrcFile = String(wedge)  # where reliontomo looks for it, for RELION 3
            subtomogram = SubTomogram()
            subtomogram.setFileName(os.path.join(self._getFolder(tsId), row["rlnImageName"]))
            subtomogram.setSamplingRate(tomogram.getSamplingRate())
            subtomogram.setCoordinate3D(coordinate)
            subtomogram._ctfImage = String(wedge)  # the same, for RELION 4
            subtomogram.setVolName(tomogram.getFileName())
            subtomogram.setTransform(Transform(coordinate.getMatrix()))
            if tomogram.hasAcquisition():
                subtomogram.setAcquisition(tomogram.getAcquisition())
            made.append(subtomogram)
        return made

    def _getTomogram(self, tsId: str) -> Tomogram:
        return tomograms_of(self)[{Tomogram.TS_ID_FIELD: tsId}]

    def _getFolder(self, tsId: str) -> str:
        return self._getExtraPath(tsId)

    def _getParticlesFile(self, tsId: str) -> str:
        return os.path.join(self._getFolder(tsId), PARTICLES_FILE)

    def _createOutput(self) -> SetOfSubTomograms:
        output = SetOfSubTomograms.create(self._getPath(), template="subtomograms%s.sqlite")
        output.setSamplingRate(tomograms_of(self).getSamplingRate())
        output.setCoordinates3D(self.inputCoordinates)
        return output
