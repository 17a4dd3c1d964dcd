"""Protocol *reference picking*: embedded tomograms and named targets in, coordinates out."""

import os
import shutil
from typing import Any, Iterable, List, Set

import numpy as np
from pyworkflow import BETA
from pyworkflow.protocol import params
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
from .streaming import TwinStreamingProtocol, file_stamp

REFERENCES, REFINED, LOCATED, PICKED = "references", "refined", "located", "picked"
"""Stages of the work before the output; the first two are those of the whole run."""
ALL = "all tomograms"


class ProtTwinReferencePicking(TwinStreamingProtocol, ProtTomoPicking):
    """Finds targets that you name in embedded tomograms.

    A target is a density map, an atomic model, a set of subtomograms or a few example positions. Maps and models are
    turned into what they would look like in your tomograms, in many orientations, and embedded with the same network
    as the tomograms; every place whose embedding is close to a target's is a candidate. No training is needed.

    The output holds the picks of all targets: the group id of a coordinate says which target it is (see the
    summary), its score is the similarity with it, from 0 to 1, and _tomotwinFDR the share of false picks to be expected
    among those of its target that score at least as much. References can be refitted to picks that you accept and reject.

    Tomograms are searched as soon as they are embedded; *Continue* searches only what is new, missing, or set otherwise.
    """

    _label = "reference picking"
    _devStatus = BETA
    _possibleOutputs = {OUTPUT_COORDINATES: SetOfCoordinates3D}

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
    def _getStreamInput(self) -> SetOfTomogramEmbeddings:
        return self.inputEmbeddings.get()

    def _isReady(self, tsIds: Iterable[str]) -> bool:
        """References made of positions in some tomograms wait for these."""
        return self._tomogramsOfPositions() <= set(tsIds)

    def _insertFirstSteps(self) -> List[int]:
        made = self._insertFunctionStep(self.referencesStep, self._run, prerequisites=[], needsGPU=self.usesGpu())
        return [self._insertFunctionStep(self.refineStep, self._run, prerequisites=[made], needsGPU=False)]

    def _insertTomogramSteps(self, tsId: str, prerequisites: List[int]) -> int:
        number = prerequisites
        for step in (self.locateStep, self.pickStep, self.createOutputStep):
            number = [self._insertFunctionStep(step, tsId, self._run, prerequisites=number, needsGPU=False)]
        return number[0]

    def referencesStep(self, run: str) -> None:
        """Make one file of reference embeddings out of everything the user gave, or take that of the run to refine."""
        made, digest = self._getMadeReferences(), self._digest(*self._targetSettings())
        if self._isDone(REFERENCES, ALL, digest) and os.path.exists(made):
            return
        cleanPath(made)
        self._setDone(REFERENCES, ALL, None)
        if names_targets(self):
            self._makeReferences(made)
        else:
            for source, copy in zip(run_of_picks(self.allPicks.get()), (made, self._getTargetsFile())):
                shutil.copyfile(source, copy)
        self._setDone(REFERENCES, ALL, digest)

    def _makeReferences(self, made: str) -> None:
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

    def refineStep(self, run: str) -> None:
        """Refit the references to accepted and rejected picks where there are some."""
        made, references = self._getMadeReferences(), self._getReferencesFile()
        digest = self._digest(*self._targetSettings(), *refinement_settings(self), file_stamp(made))
        if self._isDone(REFINED, ALL, digest) and os.path.exists(references):
            return
        cleanPath(references)
        self._setDone(REFINED, ALL, None)
        if self.acceptedPicks.get() is None:
            shutil.copyfile(made, references)
        else:
            folder = self._getExtraPath("decisions")
            cleanPath(folder)
            makePath(folder)
            args = refine_args(self, self.inputEmbeddings.get(), folder)
            args += ["--references", made, "--out", references]
            Plugin.runTomotwin(self, "refine", args, expected=references)
        self._setDone(REFINED, ALL, digest)

    def locateStep(self, tsId: str, run: str) -> None:
        """Find all candidates of all targets in one tomogram."""
        try:
            with self._lock:
                digest, peaks = self._locatedDigest(tsId), self._getPeaksFile(tsId)
                if self._isDone(LOCATED, tsId, digest) and os.path.exists(peaks):
                    return
                self._setDone(LOCATED, tsId, None)
                zarr = self._getEmbedding(tsId).getFileName()
                region = region_args(self, tsId)
            cleanPath(peaks)
            args = [zarr, "--references", self._getReferencesFile(), "--out", self._getExtraPath()]
            Plugin.runTomotwin(self, "locate", args + self._minScoreArgs() + region, expected=peaks)
            if self.writeMaps:
                Plugin.runTomotwin(self, "map", args)
            self._setDone(LOCATED, tsId, digest)
            self._setFailure(tsId, None)
        except Exception as error:
            self._setFailure(tsId, error)

    def pickStep(self, tsId: str, run: str) -> None:
        """Keep the candidates above the threshold."""
        if not self._isDone(LOCATED, tsId, self._locatedDigest(tsId)):
            return  # the search has failed
        try:
            digest, picks = self._outputDigest(tsId), self._getPicksFile(tsId)
            if self._isDone(PICKED, tsId, digest) and os.path.exists(picks):
                return
            self._setDone(PICKED, tsId, None)
            cleanPath(picks, self._getSummaryFile(tsId))
            args = [self._getPeaksFile(tsId), "--out", self._getExtraPath(), "--summary", self._getSummaryFile(tsId)]
            args += ["--references", self._getReferencesFile()] + self._thresholdArgs()
            Plugin.runTomotwin(self, "pick", args, expected=picks)
            self._setDone(PICKED, tsId, digest)
            self._setFailure(tsId, None)
        except Exception as error:
            self._setFailure(tsId, error)

    def createOutputStep(self, tsId: str, run: str) -> None:
        """Register the picks of one tomogram in the output, in the place of those of an earlier attempt."""
        failed = tsId in self._failures()
        picks = [] if failed else read_picks(self._getPicksFile(tsId))
        groups = {target.name: target.group for target in self._getTargets()}
        with self._lock:
            digest = None if failed else self._outputDigest(tsId)
            if not picks and not hasattr(self, OUTPUT_COORDINATES):
                return
            tomograms = self.inputEmbeddings.get().getTomograms(asPointer=True)
            tomogram = tomograms.get()[{Tomogram.TS_ID_FIELD: tsId}]
            output = self._openOutput(self._createOutput, self.inputEmbeddings, tomograms)
            self._removeItems(output, Coordinate3D.TOMO_ID_ATTR, tsId)
            for pick in picks:
                output.append(new_coordinate(tomogram, pick, groups[pick.label]))
            self._writeOutput(output, tsId, digest)

    def closeOutputStep(self, run: str) -> None:
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
        self._dropGone(output, Coordinate3D.TOMO_ID_ATTR)
        output.setBoxSize(self._getBoxSize())
        self._closeOutput(output)

    # ------------------------------ info ------------------------------
    def _validate(self) -> List[str]:
        errors = self._validateGpu()
        embeddings: SetOfTomogramEmbeddings = self.inputEmbeddings.get()
        missing = [item.getFileName() for item in embeddings.iterItems() if not os.path.isdir(item.getFileName())]
        if missing:
            errors.append(f"{len(missing)} embedding(s) are no longer on disk, the first is {missing[0]}.")
        tsIds = set(embeddings.getTSIds())
        if embeddings.isStreamOpen():
            tsIds |= self._tomogramsOfPositions()  # they may still come
        errors += validate_picking(self, tsIds)
        errors += validate_refinement_params(self, tsIds, names_targets(self))
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

    def _locatedDigest(self, tsId: str) -> str:
        """Of everything that the candidates in one tomogram depend on."""
        with self._lock:
            embedding = file_stamp(self._getEmbedding(tsId).getFileName())
            return self._digest(*self._searchSettings(), *self._minScoreArgs(), embedding)

    def _outputDigest(self, tsId: str) -> str:
        return self._digest(self._locatedDigest(tsId), *self._thresholdArgs())

    def _tomogramsOfPositions(self) -> Set[str]:
        """Tomograms in which positions are given that the references are made of or refitted to."""
        sets = [pointer.get() for pointer in self.inputExamples] + [self.acceptedPicks.get(), self.allPicks.get()]
        return {tsId for coordinates in sets if coordinates is not None for tsId in coordinates.getTSIds()}

    def _getBoxSize(self) -> int:
        """Edge of the box in voxels of the tomogram: even, and no smaller than the largest target."""
        if self.boxSize.get() > 0:
            return self.boxSize.get()
        diameter = max(target.diameter for target in read_measured(self._getReferencesFile()).values())
        return 2 * int(np.ceil(diameter / self.inputEmbeddings.get().getSamplingRate() / 2))

    def _createOutput(self) -> SetOfCoordinates3D:
        embeddings = self.inputEmbeddings.get()
        output = self._createSetOfCoordinates3D(embeddings.getTomograms(asPointer=True))
        output.setSamplingRate(embeddings.getSamplingRate())
        output.setBoxSize(self._getBoxSize())
        return output
