"""Protocol *reference picking*: embedded tomograms and named targets in, coordinates out."""

import csv
import os
from collections import Counter
from typing import Any, List, Tuple

import numpy as np
from pwem.objects import Volume
from pyworkflow import BETA
from pyworkflow.object import Set
from pyworkflow.protocol import LEVEL_ADVANCED, STEPS_PARALLEL, params
from pyworkflow.utils import cleanPath, makePath
from tomo.objects import Coordinate3D, SetOfCoordinates3D, SetOfTomograms, Tomogram
from tomo.protocols import ProtTomoPicking

from .. import Plugin
from ..constants import LOWEST_LISTED_SCORE, MODEL_VOXEL_SIZE_A, MODEL_WINDOW_VOXELS, OUTPUT_COORDINATES
from ..convert import Pick, new_coordinate, read_picks
from ..objects import SetOfTomogramEmbeddings, TomogramEmbedding
from ..targets import (
    Target,
    iter_references,
    prepare_examples,
    prepare_targets,
    read_measured,
    read_targets,
    write_targets,
)
from .protocol_base import TwinProtocol
from .reference_simulation import (
    define_simulation_params,
    simulation_args,
    validate_simulation_params,
)

THRESHOLD_AUTOMATIC, THRESHOLD_NUMBER = range(2)

WINDOW_A = MODEL_WINDOW_VOXELS * MODEL_VOXEL_SIZE_A


class ProtTwinReferencePicking(TwinProtocol, ProtTomoPicking):
    """Finds targets that you name in embedded tomograms.

    A target is a density map, an atomic model or a few example positions. Maps and models are turned into
    what they would look like in your tomograms, in many orientations, and embedded with the same network
    as the tomograms; every place whose embedding is close to a target's is a candidate. No training is needed.

    The output holds the picks of all targets: the group id of a coordinate says which target it is (see the
    summary), its score is the similarity with it, from 0 to 1.
    """

    _label = "reference picking"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_COORDINATES: SetOfCoordinates3D}
    stepsExecutionMode = STEPS_PARALLEL

    # ------------------------------ form ------------------------------
    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Input")
        self._defineGpuParams(form)
        form.addParam(
            "inputEmbeddings",
            params.PointerParam,
            pointerClass="SetOfTomogramEmbeddings",
            important=True,
            label="Embedded tomograms",
            help="Output of the protocol *embed tomograms*.",
        )
        form.addParam(
            "inputReferences",
            params.MultiPointerParam,
            pointerClass="Volume, SetOfVolumes, AtomStruct, SetOfAtomStructs",
            allowsNull=True,
            important=True,
            label="References",
            help="What to look for: density maps (of any voxel size and box), sets of them, or atomic models, in any "
            f"mixture. Each becomes one group of the output. Targets up to about {WINDOW_A:.0f} Å across fit the "
            "network's window; of larger ones a distinctive part is a better reference.\n"
            "Similar particles are told apart best when they are all given as references.",
        )
        form.addParam(
            "inputExamples",
            params.PointerParam,
            pointerClass="SetOfCoordinates3D",
            allowsNull=True,
            label="Example positions",
            help="Optional, instead of or beside the references: a few centres of the particle picked by hand in one "
            "or more of these tomograms, 5 to 20 of them. Together they make one more target, called _examples_. Its "
            "diameter is the box size they were picked with, unless one is given below.",
        )
        form.addParam(
            "thresholdMode",
            params.EnumParam,
            choices=["automatic", "a number"],
            default=THRESHOLD_AUTOMATIC,
            display=params.EnumParam.DISPLAY_HLIST,
            label="Threshold",
            help="Lowest similarity of a pick with its target. *automatic* takes what the software proposes for "
            "each target and tomogram.",
        )
        form.addParam(
            "threshold",
            params.FloatParam,
            default=0.9,
            condition=f"thresholdMode == {THRESHOLD_NUMBER}",
            label="Lowest similarity (0 to 1)",
            help="The same for all targets. Lower gives more picks and more false ones. Changing only this and "
            "continuing the run is quick: the search is not repeated.",
        )
        form.addParam(
            "diameter",
            params.FloatParam,
            default=0,
            label="Particle diameter (Å)",
            help="Two picks of one target are never closer than this allows, and the box size of the output follows "
            "from it. 0 takes each target's own diameter, measured in its reference.",
        )
        form.addParam(
            "boxSize",
            params.IntParam,
            default=0,
            expertLevel=LEVEL_ADVANCED,
            label="Box size (voxels)",
            help="Box size written to the output, in voxels of the tomograms; it changes no pick. "
            "0 takes the largest target's diameter.",
        )
        form.addParam(
            "writeMaps",
            params.BooleanParam,
            default=False,
            expertLevel=LEVEL_ADVANCED,
            label="Write similarity maps?",
            help="Writes the similarity with each target as an MRC volume to the run's extra folder, for looking at.",
        )
        define_simulation_params(form)
        self._defineParallelParams(form)

    # ------------------------------ steps ------------------------------
    def _insertAllSteps(self) -> None:
        settings, threshold = self._digest(*self._searchSettings()), self._getThreshold()
        made = self._insertFunctionStep(self.referencesStep, settings, prerequisites=[], needsGPU=self.usesGpu())
        outputSteps = []
        for tsId in sorted(self.inputEmbeddings.get().getTSIds()):
            args: Tuple[Any, ...] = (tsId, settings, self._attempt(tsId), self._minScoreArgs())
            located = self._insertFunctionStep(self.locateStep, *args, prerequisites=[made], needsGPU=False)
            args += (threshold,)
            picked = self._insertFunctionStep(self.pickStep, *args, prerequisites=[located], needsGPU=False)
            args += (self._boxSettings(),)
            outputSteps.append(
                self._insertFunctionStep(self.createOutputStep, *args, prerequisites=[picked], needsGPU=False)
            )
        closing = (self._digest(outputSteps, settings, threshold, self._boxSettings()), self._attempts())
        self._insertFunctionStep(self.closeOutputStep, *closing, prerequisites=outputSteps, needsGPU=False)

    def referencesStep(self, settings: str) -> None:
        """Make one file of reference embeddings out of everything the user gave."""
        embeddings: SetOfTomogramEmbeddings = self.inputEmbeddings.get()
        folder = self._getExtraPath("references")
        cleanPath(folder, self._getReferencesFile())
        makePath(folder)
        targets = prepare_targets(iter_references(self.inputReferences), folder)
        args = [f"{target.name}={target.source}" for target in targets]
        if self.inputExamples.get() is not None:
            example, zarrs = prepare_examples(self.inputExamples.get(), embeddings, targets, folder)
            targets.append(example)
            args += [f"{example.name}={example.source}"]
            args += [word for zarr in zarrs for word in ("--embedding", zarr)]
        write_targets(targets, self._getTargetsFile())
        args += ["--out", self._getReferencesFile(), "--model", embeddings.getModel()]
        args += self._referenceArgs() + self._engineArgs()
        Plugin.runTomotwin(self, "reference", args, gpu=True, expected=self._getReferencesFile())

    def locateStep(self, tsId: str, settings: str, attempt: int, minScoreArgs: List[str]) -> None:
        """Find all candidates of all targets in one tomogram."""
        try:
            with self._lock:
                zarr = self._getEmbedding(tsId).getFileName()
            cleanPath(self._getPeaksFile(tsId))
            args = [zarr, "--references", self._getReferencesFile(), "--out", self._getExtraPath()]
            Plugin.runTomotwin(self, "locate", args + minScoreArgs, expected=self._getPeaksFile(tsId))
            if self.writeMaps:
                Plugin.runTomotwin(self, "map", args)
            self._setFailure(tsId, None)
        except Exception as error:
            self._setFailure(tsId, error)

    def pickStep(self, tsId: str, settings: str, attempt: int, minScoreArgs: List[str], threshold: str) -> None:
        """Keep the candidates above the threshold."""
        if tsId in self._failures():
            return
        try:
            cleanPath(self._getPicksFile(tsId))
            args = [self._getPeaksFile(tsId), "--out", self._getExtraPath(), "--threshold", threshold]
            args += ["--references", self._getReferencesFile()]
            Plugin.runTomotwin(self, "pick", args, expected=self._getPicksFile(tsId))
        except Exception as error:
            self._setFailure(tsId, error)

    def createOutputStep(self, tsId: str, *settings: Any) -> None:
        """Register the picks of one tomogram in the output, in the place of those of an earlier attempt."""
        failed = tsId in self._failures()
        picks = [] if failed else read_picks(self._getPicksFile(tsId))
        groups = {target.name: target.group for target in self._getTargets()}
        with self._lock:
            if not picks and not hasattr(self, OUTPUT_COORDINATES):
                return
            tomogram = self.inputEmbeddings.get().getTomograms()[{Tomogram.TS_ID_FIELD: tsId}]
            output = self._getOutput()
            self._removeItems(output, Coordinate3D.TOMO_ID_ATTR, tsId)
            for pick in picks:
                output.append(new_coordinate(tomogram, pick, groups[pick.label]))
            output.write()
            self._store(output)

    def closeOutputStep(self, settings: str, attempts: int) -> None:
        """Say which group is which target, and close the output, or fail where there is nothing to put out."""
        picks = self._readAllPicks()
        failures = self._failures()
        if not picks and failures:
            reasons = [f"{tsId}: {reason}" for tsId, reason in sorted(failures.items())]
            raise RuntimeError("No picks. " + " ".join(reasons))
        if not picks:
            raise RuntimeError(
                "No particle was found above the threshold: lower it, check the contrast of tomograms and "
                "references, and look at the candidates in the files *_peaks.star of the extra folder."
            )
        self._writeGroupsTable(picks)
        output = getattr(self, OUTPUT_COORDINATES)
        output.setBoxSize(self._getBoxSize())
        self._closeOutput(output)

    # ------------------------------ info ------------------------------
    def _validate(self) -> List[str]:
        errors = self._validateGpu()
        embeddings: SetOfTomogramEmbeddings = self.inputEmbeddings.get()
        missing = [item.getFileName() for item in embeddings.iterItems() if not os.path.isdir(item.getFileName())]
        if missing:
            errors.append(f"{len(missing)} embedding(s) are no longer on disk, the first is {missing[0]}.")
        errors += self._validateTargets(embeddings)
        return errors + self._validateNumbers() + validate_simulation_params(self)

    def _validateTargets(self, embeddings: SetOfTomogramEmbeddings) -> List[str]:
        errors = []
        examples = self.inputExamples.get()
        references = [pointer.get() for pointer in self.inputReferences]
        if not references and examples is None:
            errors.append("Name something to look for: references, example positions, or both.")
        for reference in references:
            # Scipion offers these too, as they are kinds of volumes.
            if isinstance(reference, (SetOfTomograms, Tomogram)):
                errors.append("References: a tomogram cannot be a reference; give a map of the particle.")
            elif isinstance(reference, Volume) and not reference.getSamplingRate():
                errors.append(f"References: {reference.getFileName()} has no sampling rate.")
        if examples is not None and not set(examples.getTSIds()) & set(embeddings.getTSIds()):
            errors.append("Example positions: none of them is in one of the embedded tomograms (tsIds differ).")
        return errors

    def _validateNumbers(self) -> List[str]:
        errors = []
        if self.thresholdMode == THRESHOLD_NUMBER and not -1 <= self.threshold.get() < 1:
            errors.append("Threshold: a similarity is a number from -1 to 1, and useful ones are from 0 to 1.")
        if self.diameter.get() < 0 or self.boxSize.get() < 0:
            errors.append("Particle diameter and box size cannot be negative; 0 means: from the reference.")
        return errors

    def _warnings(self) -> List[str]:
        if self.diameter.get() > WINDOW_A:
            return [
                f"A particle of {self.diameter.get():g} Å does not fit the network's window of {WINDOW_A:g} Å: what is "
                "looked for is then the middle of it."
            ]
        return []

    def _summary(self) -> List[str]:
        output = getattr(self, OUTPUT_COORDINATES, None)
        if output is None or not os.path.exists(self._getGroupsFile()):
            return ["Output is not ready yet."] + self._failureSummary()
        summary = [
            f"*{output.getSize()} picks* in {len(output.getTSIds())} tomograms, box size {output.getBoxSize()} voxels",
            "Group id, target, diameter, threshold, picks:",
        ]
        with open(self._getGroupsFile(), newline="") as file:
            for row in csv.DictReader(file):
                line = "  *{group_id}*  {target},  {diameter_A} Å,  {threshold},  {picks} picks"
                summary.append(line.format(**row))
        return summary + self._failureSummary()

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_COORDINATES, None)
        if output is None:
            return []
        return [
            f"{output.getSize()} particles were picked with {len(self._getTargets())} target(s) in "
            f"{len(output.getTSIds())} tomograms by the similarity of their TomoTwin embeddings (threshold: "
            f"{self._getThreshold()})."
        ]

    def _citations(self) -> List[str]:
        return ["Rice2023"]

    # ------------------------------ helpers ------------------------------
    def _getEmbedding(self, tsId: str) -> TomogramEmbedding:
        return self.inputEmbeddings.get()[{TomogramEmbedding.TS_ID_FIELD: tsId}]

    def _getReferencesFile(self) -> str:
        return self._getExtraPath("references.safetensors")

    def _getTargetsFile(self) -> str:
        return self._getExtraPath("targets.json")

    def _getGroupsFile(self) -> str:
        return self._getExtraPath("groups.csv")

    def _getPeaksFile(self, tsId: str) -> str:
        return self._getExtraPath(tsId + "_peaks.star")

    def _getPicksFile(self, tsId: str) -> str:
        return self._getExtraPath(tsId + "_picks.star")

    def _getTargets(self) -> List[Target]:
        return read_targets(self._getTargetsFile())

    def _getThreshold(self) -> str:
        return "auto" if self.thresholdMode == THRESHOLD_AUTOMATIC else f"{self.threshold.get():g}"

    def _minScoreArgs(self) -> List[str]:
        """Ask for fainter candidates than are listed by default, where the threshold wants them."""
        if self.thresholdMode == THRESHOLD_NUMBER and self.threshold.get() < LOWEST_LISTED_SCORE:
            return ["--min-score", f"{self.threshold.get():g}"]
        return []

    def _referenceArgs(self) -> List[str]:
        """Options of ``tomotwin reference`` that change its result."""
        tomogram = self.inputEmbeddings.get().getTomograms().getFirstItem()
        diameter = ["--diameter", f"{self.diameter.get():g}"] if self.diameter.get() > 0 else []
        return simulation_args(self, tomogram) + diameter

    def _searchSettings(self) -> List[Any]:
        """Everything the candidates depend on."""
        references = [
            (reference.getFileName(), reference.getAttributeValue("_samplingRate"))
            for reference in iter_references(self.inputReferences)
        ]
        examples = self.inputExamples.get()
        positions = None if examples is None else (examples.getFileName(), examples.getSize())
        model = self.inputEmbeddings.get().getModel()
        return [model, references, positions, self._referenceArgs(), self.writeMaps.get()]

    def _boxSettings(self) -> str:
        return f"{self.diameter.get():g} Å, {self.boxSize.get()} voxels"

    def _getBoxSize(self) -> int:
        """Edge of the box in voxels of the tomogram: even, and no smaller than the largest target."""
        if self.boxSize.get() > 0:
            return self.boxSize.get()
        diameter = max(target.diameter for target in read_measured(self._getReferencesFile()).values())
        return 2 * int(np.ceil(diameter / self.inputEmbeddings.get().getSamplingRate() / 2))

    def _readAllPicks(self) -> List[Pick]:
        tsIds = set(self.inputEmbeddings.get().getTSIds()) - set(self._failures())
        paths = [self._getPicksFile(tsId) for tsId in sorted(tsIds)]
        return [pick for path in paths if os.path.exists(path) for pick in read_picks(path)]

    def _writeGroupsTable(self, picks: List[Pick]) -> None:
        """Write what each group id stands for as a CSV file."""
        measured = read_measured(self._getReferencesFile())
        counts = Counter(pick.label for pick in picks)
        with open(self._getGroupsFile(), "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["group_id", "target", "diameter_A", "threshold", "picks", "source"])
            for group, name, source in self._getTargets():
                diameter, threshold = measured[name]
                if self.thresholdMode == THRESHOLD_NUMBER:
                    threshold = self.threshold.get()
                # Without one of its own, a target's threshold comes from each tomogram's scores.
                shown = "per tomogram" if np.isnan(threshold) else f"{threshold:.3f}"
                writer.writerow([group, name, f"{diameter:.0f}", shown, counts[name], source])

    def _getOutput(self) -> SetOfCoordinates3D:
        """The output set, made with the first picks and appended to afterwards."""
        output = getattr(self, OUTPUT_COORDINATES, None)
        if output is not None:
            output.enableAppend()
            return output
        embeddings = self.inputEmbeddings.get()
        output = self._createSetOfCoordinates3D(embeddings.getTomograms(asPointer=True))
        output.setSamplingRate(embeddings.getSamplingRate())
        output.setBoxSize(self._getBoxSize())
        output.setStreamState(Set.STREAM_OPEN)
        self._defineOutputs(**{OUTPUT_COORDINATES: output})
        self._defineSourceRelation(self.inputEmbeddings, output)
        self._defineSourceRelation(embeddings.getTomograms(asPointer=True), output)
        return output
