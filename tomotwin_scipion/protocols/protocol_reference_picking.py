"""Protocol *reference picking*: embedded tomograms and named targets in, coordinates out."""

import os
import shutil
from typing import Any, List, Tuple

import numpy as np
from pyworkflow import BETA
from pyworkflow.object import Set
from pyworkflow.protocol import STEPS_PARALLEL, params
from pyworkflow.utils import cleanPath, makePath
from tomo.objects import Coordinate3D, SetOfCoordinates3D, Tomogram
from tomo.protocols import ProtTomoPicking

from .. import Plugin
from ..constants import LOWEST_LISTED_SCORE, OUTPUT_COORDINATES
from ..convert import new_coordinate, read_picks
from ..objects import SetOfTomogramEmbeddings, TomogramEmbedding
from ..targets import (
    GROUPS_FILE,
    Target,
    add_examples,
    add_identifiers,
    iter_references,
    prepare_targets,
    read_measured,
    read_targets,
    write_targets,
)
from .picking_form import (
    THRESHOLD_FDR,
    THRESHOLD_NUMBER,
    define_target_params,
    define_threshold_params,
    names_targets,
    validate_picking,
    warn_of_picking,
)
from .picking_report import PICKS_FILE, add_up, group_rows, read_rows, summary_lines, write_rows
from .protocol_base import TwinProtocol
from .reference_simulation import define_simulation_params, simulation_args, validate_simulation_params
from .refinement import (
    REFERENCES_FILE,
    TARGETS_FILE,
    define_refinement_params,
    refine_args,
    refinement_settings,
    run_of_picks,
    validate_refinement_params,
)
from .region_form import (
    define_region_params,
    region_args,
    region_settings,
    validate_region_params,
    warn_of_region_params,
)


class ProtTwinReferencePicking(TwinProtocol, ProtTomoPicking):
    """Finds targets that you name in embedded tomograms.

    A target is a density map, an atomic model, a set of subtomograms or a few example positions. Maps and models are
    turned into what they would look like in your tomograms, in many orientations, and embedded with the same network
    as the tomograms; every place whose embedding is close to a target's is a candidate. No training is needed.

    The output holds the picks of all targets: the group id of a coordinate says which target it is (see the
    summary), its score is the similarity with it, from 0 to 1, and _tomotwinFDR the share of false picks to be expected
    among those of its target that score at least as much. References can be refitted to picks that you accept and reject.
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
        define_target_params(form)
        define_threshold_params(form)
        define_region_params(form, found=False)
        define_refinement_params(form)
        define_simulation_params(form)
        self._defineParallelParams(form)

    # ------------------------------ steps ------------------------------
    def _insertAllSteps(self) -> None:
        made = self._insertFunctionStep(
            self.referencesStep, self._digest(*self._targetSettings()), prerequisites=[], needsGPU=self.usesGpu()
        )
        settings, threshold = self._digest(*self._searchSettings()), self._thresholdArgs()
        refined = self._insertFunctionStep(self.refineStep, settings, prerequisites=[made], needsGPU=False)
        outputSteps = []
        for tsId in sorted(self.inputEmbeddings.get().getTSIds()):
            args: Tuple[Any, ...] = (tsId, settings, self._attempt(tsId), self._minScoreArgs())
            located = self._insertFunctionStep(self.locateStep, *args, prerequisites=[refined], needsGPU=False)
            args += (threshold,)
            picked = self._insertFunctionStep(self.pickStep, *args, prerequisites=[located], needsGPU=False)
            args += (self._boxSettings(),)
            outputSteps.append(
                self._insertFunctionStep(self.createOutputStep, *args, prerequisites=[picked], needsGPU=False)
            )
        closing = (self._digest(outputSteps, settings, threshold, self._boxSettings()), self._attempts())
        self._insertFunctionStep(self.closeOutputStep, *closing, prerequisites=outputSteps, needsGPU=False)

    def referencesStep(self, settings: str) -> None:
        """Make one file of reference embeddings out of everything the user gave, or take that of the run to refine."""
        made = self._getMadeReferences()
        cleanPath(made)
        if not names_targets(self):
            for source, copy in zip(run_of_picks(self.allPicks.get()), (made, self._getTargetsFile())):
                shutil.copyfile(source, copy)
            return
        embeddings: SetOfTomogramEmbeddings = self.inputEmbeddings.get()
        folder = self._getExtraPath("references")
        cleanPath(folder)
        makePath(folder)
        targets = prepare_targets(iter_references(self.inputReferences), folder)
        add_identifiers(self.identifiers.get(), targets)
        zarrs = {item.getTsId(): item.getFileName() for item in embeddings.iterItems()}
        examples = [pointer.get() for pointer in self.inputExamples]
        tsIds = add_examples(examples, targets, folder, embeddings.getSamplingRate(), zarrs, self.examplesByGroup.get())
        write_targets(targets, self._getTargetsFile())
        args: List[Any] = [f"{target.name}={target.source}" for target in targets]
        args += [word for tsId in tsIds for word in ("--embedding", zarrs[tsId])]
        args += ["--out", made, "--model", embeddings.getModel()] + self._referenceArgs() + self._engineArgs()
        Plugin.runTomotwin(self, "reference", args, gpu=True, expected=made)

    def refineStep(self, settings: str) -> None:
        """Refit the references to accepted and rejected picks where there are some."""
        made, references = self._getMadeReferences(), self._getReferencesFile()
        cleanPath(references)
        if self.acceptedPicks.get() is None:
            shutil.copyfile(made, references)
            return
        folder = self._getExtraPath("decisions")
        cleanPath(folder)
        makePath(folder)
        args = refine_args(self, self.inputEmbeddings.get(), folder) + ["--references", made, "--out", references]
        Plugin.runTomotwin(self, "refine", args, expected=references)

    def locateStep(self, tsId: str, settings: str, attempt: int, minScoreArgs: List[str]) -> None:
        """Find all candidates of all targets in one tomogram."""
        try:
            with self._lock:
                zarr = self._getEmbedding(tsId).getFileName()
                region = region_args(self, tsId)
            cleanPath(self._getPeaksFile(tsId))
            args = [zarr, "--references", self._getReferencesFile(), "--out", self._getExtraPath()]
            Plugin.runTomotwin(self, "locate", args + minScoreArgs + region, expected=self._getPeaksFile(tsId))
            if self.writeMaps:
                Plugin.runTomotwin(self, "map", args)
            self._setFailure(tsId, None)
        except Exception as error:
            self._setFailure(tsId, error)

    def pickStep(self, tsId: str, settings: str, attempt: int, minScoreArgs: List[str], threshold: List[str]) -> None:
        """Keep the candidates above the threshold."""
        if tsId in self._failures():
            return
        try:
            cleanPath(self._getPicksFile(tsId), self._getSummaryFile(tsId))
            args = [self._getPeaksFile(tsId), "--out", self._getExtraPath(), "--summary", self._getSummaryFile(tsId)]
            args += ["--references", self._getReferencesFile()] + threshold
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
        failures = self._failures()
        tsIds = sorted(set(self.inputEmbeddings.get().getTSIds()) - set(failures))
        rows = [row for tsId in tsIds for row in read_rows(self._getSummaryFile(tsId))]
        if not add_up(rows).picks and failures:
            reasons = [f"{tsId}: {reason}" for tsId, reason in sorted(failures.items())]
            raise RuntimeError("No picks. " + " ".join(reasons))
        if not add_up(rows).picks:
            raise RuntimeError(
                "No particle was found above the threshold: lower it, check the contrast of tomograms and "
                "references and the region, and look at the candidates in the files *_peaks.star of the extra folder."
            )
        write_rows(self._getExtraPath(PICKS_FILE), rows)
        groups = group_rows(self._getTargets(), read_measured(self._getReferencesFile()), rows)
        write_rows(self._getGroupsFile(), groups)
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
        errors += validate_picking(self, embeddings)
        errors += validate_refinement_params(self, embeddings.getTSIds(), names_targets(self))
        errors += validate_region_params(self, embeddings.getTomograms())
        return errors + validate_simulation_params(self)

    def _warnings(self) -> List[str]:
        return warn_of_picking(self) + warn_of_region_params(self, self.inputEmbeddings.get().getTSIds())

    def _summary(self) -> List[str]:
        output = getattr(self, OUTPUT_COORDINATES, None)
        if output is None or not os.path.exists(self._getGroupsFile()):
            return ["Output is not ready yet."] + self._failureSummary()
        rows = read_rows(self._getExtraPath(PICKS_FILE))
        summary = [
            f"*{output.getSize()} picks* in {len(output.getTSIds())} tomograms, box size {output.getBoxSize()} voxels, "
            f"threshold: {self._describeThreshold()}",
        ]
        if self.acceptedPicks.get() is not None:
            summary.append("References were refitted to accepted and rejected picks.")
        return summary + summary_lines(read_rows(self._getGroupsFile()), rows) + self._failureSummary()

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_COORDINATES, None)
        if output is None or not os.path.exists(self._getGroupsFile()):
            return []
        fdr = add_up(read_rows(self._getExtraPath(PICKS_FILE))).fdr
        refitted = " The references were refitted to picks accepted and rejected by hand."
        return [
            f"{output.getSize()} particles were picked with {len(self._getTargets())} target(s) in "
            f"{len(output.getTSIds())} tomograms by the similarity of their TomoTwin embeddings (threshold: "
            f"{self._describeThreshold()})."
            + (f" The expected false-discovery rate is {fdr:.2f}." if fdr == fdr else "")
            + (refitted if self.acceptedPicks.get() is not None else "")
        ]

    def _citations(self) -> List[str]:
        return ["Rice2023"]

    # ------------------------------ helpers ------------------------------
    def _getEmbedding(self, tsId: str) -> TomogramEmbedding:
        return self.inputEmbeddings.get()[{TomogramEmbedding.TS_ID_FIELD: tsId}]

    def _getMadeReferences(self) -> str:
        """The references before they are refitted."""
        return self._getExtraPath("made_" + REFERENCES_FILE)

    def _getReferencesFile(self) -> str:
        return self._getExtraPath(REFERENCES_FILE)

    def _getTargetsFile(self) -> str:
        return self._getExtraPath(TARGETS_FILE)

    def _getGroupsFile(self) -> str:
        return self._getExtraPath(GROUPS_FILE)

    def _getPeaksFile(self, tsId: str) -> str:
        return self._getExtraPath(tsId + "_peaks.star")

    def _getPicksFile(self, tsId: str) -> str:
        return self._getExtraPath(tsId + "_picks.star")

    def _getSummaryFile(self, tsId: str) -> str:
        return self._getExtraPath(tsId + "_picks.csv")

    def _getTargets(self) -> List[Target]:
        return read_targets(self._getTargetsFile())

    def _thresholdArgs(self) -> List[str]:
        if self.thresholdMode == THRESHOLD_FDR:
            return ["--fdr", f"{self.fdr.get():g}"]
        return ["--threshold", f"{self.threshold.get():g}" if self.thresholdMode == THRESHOLD_NUMBER else "auto"]

    def _describeThreshold(self) -> str:
        if self.thresholdMode == THRESHOLD_FDR:
            return f"expected FDR {self.fdr.get():g}"
        return f"{self.threshold.get():g}" if self.thresholdMode == THRESHOLD_NUMBER else "proposed"

    def _minScoreArgs(self) -> List[str]:
        """Ask for fainter candidates than are listed by default, where the threshold wants them."""
        if self.thresholdMode == THRESHOLD_NUMBER and self.threshold.get() < LOWEST_LISTED_SCORE:
            return ["--min-score", f"{self.threshold.get():g}"]
        return []

    def _referenceArgs(self) -> List[str]:
        """Options of ``tomotwin reference`` that change its result."""
        tomogram = self.inputEmbeddings.get().getTomograms().getFirstItem()
        diameter = ["--diameter", f"{self.diameter.get():g}"] if self.diameter.get() > 0 else []
        alone = [] if self.calibrateExamples else ["--no-simulation"]
        return simulation_args(self, tomogram) + diameter + alone

    def _targetSettings(self) -> List[Any]:
        """Everything the references depend on, before they are refitted."""
        if not names_targets(self):
            return [self.allPicks.get().getFileName()]
        references = [
            (reference.getFileName(), reference.getAttributeValue("_samplingRate"))
            for reference in iter_references(self.inputReferences)
        ]
        sets = [pointer.get() for pointer in self.inputExamples]
        positions = [(examples.getFileName(), examples.getSize()) for examples in sets]
        model = self.inputEmbeddings.get().getModel()
        named = [self.identifiers.get(), self.examplesByGroup.get()]
        return [model, references, positions, named, self._referenceArgs()]

    def _searchSettings(self) -> List[Any]:
        """Everything the candidates depend on."""
        return self._targetSettings() + [refinement_settings(self), region_settings(self), self.writeMaps.get()]

    def _boxSettings(self) -> str:
        return f"{self.diameter.get():g} Å, {self.boxSize.get()} voxels"

    def _getBoxSize(self) -> int:
        """Edge of the box in voxels of the tomogram: even, and no smaller than the largest target."""
        if self.boxSize.get() > 0:
            return self.boxSize.get()
        diameter = max(target.diameter for target in read_measured(self._getReferencesFile()).values())
        return 2 * int(np.ceil(diameter / self.inputEmbeddings.get().getSamplingRate() / 2))

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
