"""Protocol *orient picks*: coordinates and the molecule in, coordinates with orientations and better centres out."""

import csv
import os
from typing import Any, Dict, List, Set

from pyworkflow import BETA
from pyworkflow.object import Float
from pyworkflow.protocol import LEVEL_ADVANCED, params
from pyworkflow.utils import cleanPath, makePath
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import Coordinate3D, SetOfCoordinates3D, Tomogram
from tomo.protocols import ProtTomoPicking

from .. import Plugin
from ..constants import BRIGHT, CONTRASTS, DARK, OUTPUT_COORDINATES
from ..convert import CORRELATION_ATTRIBUTE, link_tomogram, particle_matrix, plain_path, read_picks, write_positions
from ..enabled import enabled_coordinates, ts_ids
from ..targets import parse_identifiers, prepare_targets
from .positions_form import chosen_group, define_positions_params, tomograms_of, tomograms_pointer, validate_positions
from .reference_simulation import acquisition_args, define_acquisition_params, validate_simulation_params
from .streaming import TwinStreamingProtocol, file_stamp

FROM_PROJECT, FROM_IDENTIFIER = range(2)
KEEP_ALL, KEEP_SUGGESTED, KEEP_ABOVE = range(3)
ORIENTED = "oriented"


class ProtTwinOrientPicks(TwinStreamingProtocol, ProtTomoPicking):
    """Finds how each picked particle lies, so that it can be averaged.

    At each pick the molecule is compared with the tomogram in all orientations and within a short way of the pick, both
    imaged alike (missing wedge, CTF). The output holds the same picks with their orientations as transformation matrices
    and refined centres; extraction and averaging of other plugins take both from there. The correlation of molecule and
    tomogram is kept in _tomotwinCorrelation: it is low where the pick is false.

    Nothing finer than the resolution limit of the reference is used, so that finer details of an average are those of
    the data.
    """

    _label = "orient picks"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_COORDINATES: SetOfCoordinates3D}
    _streamInput = "inputCoordinates"
    _tsIdField = Coordinate3D.TOMO_ID_ATTR
    _isNothing = "No pick could be oriented, or none agrees well enough with the molecule."

    # ------------------------------ form ------------------------------
    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Input")
        self._defineGpuParams(form)
        define_positions_params(form)
        form.addParam(
            "moleculeFrom",
            params.EnumParam,
            choices=["map or model of this project", "identifier"],
            default=FROM_PROJECT,
            display=params.EnumParam.DISPLAY_HLIST,
            label="The molecule is a",
            help="What is not chosen here is not used, even where its field is filled in.",
        )
        form.addParam(
            "inputReference",
            params.PointerParam,
            pointerClass="Volume, AtomStruct",
            allowsNull=True,
            condition=f"moleculeFrom == {FROM_PROJECT}",
            important=True,
            label="Molecule",
            help="A density map or an atomic model. Centres will be those of its mass.",
        )
        form.addParam(
            "identifier",
            params.StringParam,
            default="",
            condition=f"moleculeFrom == {FROM_IDENTIFIER}",
            label="Identifier",
            help="_pdb:1aon_, _emdb:2660_ (both need the internet), or _library:1aon_.",
        )
        form.addParam(
            "referenceContrast",
            params.EnumParam,
            choices=CONTRASTS,
            default=BRIGHT,
            display=params.EnumParam.DISPLAY_HLIST,
            expertLevel=LEVEL_ADVANCED,
            label="In the map it is",
            help="Contrast of a density map: *bright*, as in the EMDB and out of refinements, or *dark*.",
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
            "keep",
            params.EnumParam,
            choices=["all", "above the suggested", "above a value"],
            default=KEEP_ALL,
            display=params.EnumParam.DISPLAY_HLIST,
            label="Picks that are kept",
            help="By the correlation with the molecule. *above the suggested*: in each tomogram well above what the same "
            "search finds where nothing was picked, and above half of what the best picks reach; it takes away most false picks. *all* leaves that to a "
            "classification. Changing this and continuing the run is quick.",
        )
        form.addParam(
            "minCorrelation",
            params.FloatParam,
            default=0.4,
            condition=f"keep == {KEEP_ABOVE}",
            label="Lowest correlation (0 to 1)",
            help="Of picks that are kept. See the summary of a run for what was found.",
        )
        form.addSection(label="Search")
        form.addParam(
            "lowPass",
            params.FloatParam,
            default=30.0,
            label="Resolution limit (Å)",
            help="Nothing finer of the molecule is used. 30 for most; a lower number orients small molecules better and puts "
            "more of the reference into the average.",
        )
        form.addParam(
            "shift",
            params.FloatParam,
            default=25.0,
            label="Largest shift (Å)",
            help="How far a centre may move along each axis. Picks of this software are 10 Å off, seldom 20.",
        )
        form.addParam(
            "step",
            params.FloatParam,
            default=15.0,
            expertLevel=LEVEL_ADVANCED,
            label="Angular step (deg)",
            help="Of the search over all orientations; 15 for most, 10 for particles of 300 Å and more.",
        )
        form.addParam(
            "finest",
            params.FloatParam,
            default=2.0,
            expertLevel=LEVEL_ADVANCED,
            label="Finest step (deg)",
            help="To which the best orientations are refined.",
        )
        define_acquisition_params(form)
        self._defineParallelParams(form)

    # ------------------------------ steps ------------------------------
    def _insertFirstSteps(self) -> List[int]:
        return [self._insertFunctionStep(self.referenceStep, self._run, prerequisites=[], needsGPU=False)]

    def _insertTomogramSteps(self, tsId: str, prerequisites: List[int]) -> int:
        args = (tsId, self._run)
        done = self._insertFunctionStep(self.orientStep, *args, prerequisites=prerequisites, needsGPU=self.usesGpu())
        return self._insertFunctionStep(self.createOutputStep, *args, prerequisites=[done], needsGPU=False)

    def referenceStep(self, run: str) -> None:
        """Bring the molecule to a file that the engine reads."""
        if self.moleculeFrom == FROM_PROJECT:
            folder = self._getTmpPath("reference")
            cleanPath(folder)
            makePath(folder)
            (target,) = prepare_targets([self.inputReference.get()], folder)
            source = target.source
        else:
            (source,) = parse_identifiers(self.identifier.get())
        with open(self._getTmpPath("reference.txt"), "w") as file:
            file.write(source)

    def _filesOf(self, tsId: str) -> List[str]:
        return [self._getOrientedFile(tsId), self._getSummaryFile(tsId)]

    def orientStep(self, tsId: str, run: str) -> None:
        """Have the engine orient the picks of one tomogram."""
        try:
            digest = self._searchDigest(tsId)
            if self._isDone(ORIENTED, tsId, digest) and self._hasResults(tsId):
                return
            with self._lock:
                tomogram = self._getTomogram(tsId)
                folder = self._getTmpPath("tomograms")
                makePath(folder)
                path = link_tomogram(tomogram, folder)
                picks = self._getExtraPath(tsId + "_picks.star")
                group = chosen_group(self)
                write_positions(
                    self.inputCoordinates.get(), picks, tomogram.getSamplingRate(), [tsId], {group: "particle"}
                )
                args = self._searchArgs(tomogram)
            with open(self._getTmpPath("reference.txt")) as file:
                source = file.read()
            cleanPath(self._getOrientedFile(tsId))
            args = [picks, "--tomograms", path, "--reference", source, "--out", self._getExtraPath()] + args
            args += ["--summary", self._getSummaryFile(tsId)] + self._engineArgs()
            Plugin.runTomotwin(self, "orient", args, gpu=True, expected=self._getOrientedFile(tsId))
            self._setDone(ORIENTED, tsId, digest)
            self._setFailure(tsId, None)
        except Exception as error:
            self._setDone(ORIENTED, tsId, None)
            self._setFailure(tsId, error)

    # ------------------------------ info ------------------------------
    def _validate(self) -> List[str]:
        errors = self._validateGpu() + validate_positions(self) + validate_simulation_params(self)
        errors += self._validateReference() if self.moleculeFrom == FROM_PROJECT else self._validateIdentifier()
        if not 5 <= self.lowPass.get() <= 200:
            errors.append("Resolution limit: give it in Å, within 5 and 200.")
        if not 0 <= self.shift.get() <= 200:
            errors.append("Largest shift: give it in Å, within 0 and 200.")
        if not 5 <= self.step.get() <= 60 or not 0.5 <= self.finest.get() <= self.step.get():
            errors.append("Angular steps: the first lies within 5 and 60 degrees, the finest within 0.5 and the first.")
        if self.keep == KEEP_ABOVE and not -1 <= self.minCorrelation.get() < 1:
            errors.append("Lowest correlation: a correlation is a number from -1 to 1.")
        return errors

    def _validateReference(self) -> List[str]:
        reference = self.inputReference.get()
        if reference is None:
            return ["Molecule: choose a map or model, or have it taken by its identifier."]
        if hasattr(reference, "getSamplingRate") and not reference.getSamplingRate():
            return [f"Molecule: {reference.getFileName()} has no sampling rate."]
        return []

    def _validateIdentifier(self) -> List[str]:
        try:
            sources = parse_identifiers(self.identifier.get())
        except ValueError as error:
            return [f"Molecule: {error}"]
        if len(sources) == 1:
            return []
        return ["Molecule: write one identifier, such as pdb:1aon; all picks are of one molecule."]

    def _warnings(self) -> List[str]:
        size = tomograms_of(self).getSamplingRate()
        if size and 2 * size > self.lowPass.get():
            return [f"Resolution limit: tomograms of {size:.1f} Å a voxel show nothing finer than {2 * size:.1f} Å."]
        return []

    def _summary(self) -> List[str]:
        output = getattr(self, OUTPUT_COORDINATES, None)
        if output is None:
            return ["Output is not ready yet."] + self._failureSummary()
        total = self.inputCoordinates.get().getSize()
        summary = [f"*{output.getSize()} oriented picks* of {total}; correlation with the molecule, median:"]
        for tsId, row in self._found().items():
            nothing = f", where nothing was picked {row['background']}" if row["background"] else ""
            suggested = f", suggested threshold {row['suggested']}" if row["suggested"] else ""
            summary.append(f"  {tsId}:  {row['median']}{nothing}{suggested}")
        return summary + self._failureSummary()

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_COORDINATES, None)
        if output is None:
            return []
        kept = "" if self.keep == KEEP_ALL else " Picks that agree no better with it than background were left out."
        return [
            f"{output.getSize()} particles were oriented by locally normalised cross-correlation with the molecule, imaged "
            f"as the tomograms were and low-passed to {self.lowPass.get():g} Å.{kept}"
        ]

    def _citations(self) -> List[str]:
        return ["Roseman2003"]

    # ------------------------------ helpers ------------------------------
    def _searchArgs(self, tomogram: Tomogram) -> List[str]:
        """Options of ``tomotwin orient`` that change its result."""
        args = ["--low-pass", f"{self.lowPass.get():g}", "--shift", f"{self.shift.get():g}"]
        args += ["--step", f"{self.step.get():g}", "--finest", f"{self.finest.get():g}"]
        args += ["--contrast", CONTRASTS[self.contrast.get()]]
        args += ["--reference-contrast", CONTRASTS[self.referenceContrast.get()]]
        args += ["--voxel-size", f"{tomogram.getSamplingRate():g}"]
        return args + acquisition_args(self, tomogram)

    def _searchDigest(self, tsId: str) -> str:
        if self.moleculeFrom == FROM_PROJECT:
            named: Any = file_stamp(plain_path(self.inputReference.get().getFileName()))
        else:
            named = self.identifier.get()
        tomogram = self._getTomogram(tsId)
        places = [
            [*coordinate.getPosition(BOTTOM_LEFT_CORNER), coordinate.getObjId()]
            for coordinate in self._coordinates(tsId)
        ]
        stamp = file_stamp(plain_path(tomogram.getFileName()))
        return self._digest(named, stamp, places, chosen_group(self), self._searchArgs(tomogram))

    def _outputDigest(self, tsId: str) -> str:
        return self._digest(self._searchDigest(tsId), self.keep.get(), self.minCorrelation.get())

    def _coordinates(self, tsId: str) -> List[Coordinate3D]:
        """The wanted picks of a tomogram, in the order in which they are written for the engine."""
        coordinates = self.inputCoordinates.get()
        precedent = coordinates.getPrecedents()[{Tomogram.TS_ID_FIELD: tsId}]
        group = chosen_group(self)
        found = [item.clone() for item in enabled_coordinates(coordinates, precedent) if item.getGroupId() == group]
        for item in found:
            item.setVolume(precedent)
        return found

    def _outputItems(self, tsId: str) -> List[Coordinate3D]:
        tomogram = self._getTomogram(tsId)
        lowest = {KEEP_ALL: -1.0, KEEP_ABOVE: self.minCorrelation.get()}.get(self.keep.get())
        if lowest is None:
            lowest = float(self._found().get(tsId, {}).get("suggested") or -1.0)
        kept = []
        for coordinate, pick in zip(self._coordinates(tsId), read_picks(self._getOrientedFile(tsId))):
            if pick.correlation is not None and pick.correlation >= lowest:
                coordinate.setVolume(tomogram)
                coordinate.setPosition(pick.x, pick.y, pick.z, BOTTOM_LEFT_CORNER)
                coordinate.setMatrix(particle_matrix(pick.angles))
                setattr(coordinate, CORRELATION_ATTRIBUTE, Float(pick.correlation))
                coordinate.setObjId(None)
                kept.append(coordinate)
        return kept

    def _found(self) -> Dict[str, Dict[str, str]]:
        """What the engine said of each tomogram."""
        rows = {}
        for tsId in sorted(self._tsIds()):
            if os.path.exists(self._getSummaryFile(tsId)):
                with open(self._getSummaryFile(tsId), newline="") as file:
                    rows[tsId] = next(csv.DictReader(file))
        return rows

    def _tsIds(self) -> Set[str]:
        return set(ts_ids(self.inputCoordinates.get()))

    def _getTomogram(self, tsId: str) -> Tomogram:
        return tomograms_of(self)[{Tomogram.TS_ID_FIELD: tsId}]

    def _getOrientedFile(self, tsId: str) -> str:
        return self._getExtraPath(tsId + "_oriented.star")

    def _getSummaryFile(self, tsId: str) -> str:
        return self._getExtraPath(tsId + "_oriented.csv")

    def _createOutput(self) -> SetOfCoordinates3D:
        coordinates = self.inputCoordinates.get()
        tomograms = tomograms_of(self)
        output = self._createSetOfCoordinates3D(tomograms_pointer(self))
        output.setSamplingRate(tomograms.getSamplingRate())
        box = (coordinates.getBoxSize() or 0) * coordinates.getSamplingRate() / tomograms.getSamplingRate()
        output.setBoxSize(2 * round(box / 2))
        return output
