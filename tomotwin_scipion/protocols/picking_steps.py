"""What protocols of picking share: references looked for in embedded tomograms, one tomogram after the other.

What is looked for is a file of reference embeddings (``references.safetensors``), and a list that says which target is
which group id of the coordinates (targets.json). *Reference picking* makes them of what the user names, *cluster picking* of
clusters. From there on the way is the same: `tomotwin locate` and `tomotwin pick` for each tomogram, in parallel, and
the picks as coordinates in one output.
"""

import os
from typing import Any, Iterable, List

from pyworkflow.utils import cleanPath
from tomo.objects import Coordinate3D, SetOfCoordinates3D, Tomogram
from tomo.protocols import ProtTomoPicking

from .. import Plugin
from ..constants import LOWEST_LISTED_SCORE, OUTPUT_COORDINATES
from ..convert import box_of, new_coordinate, read_picks
from ..enabled import enabled_items, ts_ids
from ..errors import TwinError
from ..objects import TomogramEmbedding
from ..targets import GROUPS_FILE, Target, read_measured, read_targets
from .picking_form import THRESHOLD_FDR, THRESHOLD_NUMBER
from .picking_report import PICKS_FILE, Found, Row, add_up, group_rows, read_rows, summary_lines, write_rows
from .refinement import REFERENCES_FILE, TARGETS_FILE
from .region_form import region_args
from .streaming import TwinStreamingProtocol, file_stamp

LOCATED, PICKED = "located", "picked"
"""Stages of the work on one tomogram before the output."""
ALL = "all tomograms"


class TwinPickingProtocol(TwinStreamingProtocol, ProtTomoPicking):
    """Base of protocols that pick; it is not shown in Scipion's tree, having no label.

    Its form has `inputEmbeddings`, and the sections of picking_form.define_threshold_params and region_form.
    """

    _streamInput = "inputEmbeddings"
    _tsIdField = Coordinate3D.TOMO_ID_ATTR

    # ------------------------------ what a protocol says ------------------------------
    def _searchSettings(self) -> List[Any]:
        """Everything that the candidates depend on, but for the tomogram."""
        raise NotImplementedError

    def _locateArgs(self) -> List[str]:
        """More options of ``tomotwin locate``."""
        return []

    # ------------------------------ steps ------------------------------
    def _insertTomogramSteps(self, tsId: str, prerequisites: List[int]) -> int:
        number = prerequisites
        for step in (self.locateStep, self.pickStep, self.createOutputStep):
            number = [self._insertFunctionStep(step, tsId, self._run, prerequisites=number, needsGPU=False)]
        return number[0]

    def locateStep(self, tsId: str, run: str) -> None:
        """Find all candidates of all targets in one tomogram."""
        if not self._getTargets():
            return  # there are no clusters
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
            Plugin.runTomotwin(self, "locate", args + self._minScoreArgs() + region + self._locateArgs(), expected=peaks)
            if self.writeMaps:
                Plugin.runTomotwin(self, "map", args)
            self._setDone(LOCATED, tsId, digest)
            self._setFailure(tsId, None)
        except Exception as error:
            self._setFailure(tsId, error)

    def _filesOf(self, tsId: str) -> List[str]:
        if os.path.exists(self._getTargetsFile()) and not self._getTargets():
            return []  # there are no clusters
        return [self._getPeaksFile(tsId), self._getPicksFile(tsId), self._getSummaryFile(tsId)]

    def pickStep(self, tsId: str, run: str) -> None:
        """Keep the candidates above the threshold."""
        if not self._getTargets():
            return
        if not self._isDone(LOCATED, tsId, self._locatedDigest(tsId)):
            return  # the search has failed
        try:
            digest, picks = self._outputDigest(tsId), self._getPicksFile(tsId)
            if self._isDone(PICKED, tsId, digest) and self._hasResults(tsId):
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
        if not self._getTargets():
            return
        failed = tsId in self._failures()
        picks = [] if failed else read_picks(self._getPicksFile(tsId))
        groups = {target.name: target.group for target in self._getTargets()}
        with self._lock:
            digest = None if failed else self._outputDigest(tsId)
            if not picks and not hasattr(self, OUTPUT_COORDINATES):
                return
            tomograms = self.inputEmbeddings.get().getTomograms(asPointer=True)
            tomogram = tomograms.get()[{Tomogram.TS_ID_FIELD: tsId}]
            output = self._openOutput(self.inputEmbeddings, tomograms)
            self._removeItems(output, self._tsIdField, tsId)
            for pick in picks:
                output.append(new_coordinate(tomogram, pick, groups[pick.label]))
            self._writeOutput(output, tsId, digest)
            if self._isStreaming():  # who looks in the meantime sees names and numbers
                here = set(self._here) - set(self._failures())
                self._writeReport(sorted(one for one in here if os.path.exists(self._getSummaryFile(one))))

    def _close(self) -> None:
        """Say which group is which target, and close the output, or fail where there is nothing to put out."""
        self._closePicks()

    def _closePicks(self) -> None:
        failures = self._failures()
        tsIds = sorted(set(self._here) - set(failures))
        found = self._writeReport(tsIds)
        if not found.picks and failures:
            reasons = [f"{tsId}: {reason}" for tsId, reason in sorted(failures.items())]
            raise TwinError("No picks. " + " ".join(reasons))
        if not found.picks:
            raise TwinError(
                "No particle was found above the threshold: lower it, check the contrast of tomograms and "
                "references and the region, and look at the candidates in the files *_peaks.star of the extra folder."
            )
        output = getattr(self, OUTPUT_COORDINATES)
        self._dropGone(output)
        output.setBoxSize(self._getBoxSize())
        self._closeOutput(output)

    def _writeReport(self, tsIds: Iterable[str]) -> Found:
        """Write the tables of what was found in some tomograms; returns all of it together."""
        rows = [row for tsId in tsIds for row in read_rows(self._getSummaryFile(tsId))]
        found = add_up(rows)
        if found.picks:
            write_rows(self._getExtraPath(PICKS_FILE), rows)
            groups = group_rows(self._getTargets(), read_measured(self._getReferencesFile()), rows)
            write_rows(self._getGroupsFile(), groups + self._furtherGroups())
        return found

    # ------------------------------ info ------------------------------
    def _validateEmbeddings(self) -> List[str]:
        """A sentence where embeddings are no longer there."""
        missing = [
            item.getFileName()
            for item in enabled_items(self.inputEmbeddings.get())
            if not os.path.isdir(item.getFileName())
        ]
        if not missing:
            return []
        return [
            f"{len(missing)} embedding(s) are no longer on disk, the first is {missing[0]}; continue the run of embed tomograms, "
            "which makes them again."
        ]

    def _furtherGroups(self) -> List[Row]:
        """Further rows of the table of groups."""
        return []

    def _remarks(self) -> List[str]:
        """Further lines of the summary."""
        return []

    def _summary(self) -> List[str]:
        output = getattr(self, OUTPUT_COORDINATES, None)
        if output is None or not os.path.exists(self._getGroupsFile()):
            return ["Output is not ready yet."] + self._failureSummary()
        rows = read_rows(self._getExtraPath(PICKS_FILE))
        summary = [
            f"*{output.getSize()} picks* in {len(ts_ids(output))} tomograms, box size {output.getBoxSize()} voxels, "
            f"threshold: {self._describeThreshold()}",
        ]
        summary += self._remarks()
        names = {target.name for target in self._getTargets()}
        groups = [row for row in read_rows(self._getGroupsFile()) if row["target"] in names]
        return summary + summary_lines(groups, rows) + self._failureSummary()

    def _methods(self) -> List[str]:
        output = getattr(self, OUTPUT_COORDINATES, None)
        if output is None or not os.path.exists(self._getGroupsFile()):
            return []
        fdr = add_up(read_rows(self._getExtraPath(PICKS_FILE))).fdr
        return [
            f"{output.getSize()} particles were picked with {len(self._getTargets())} target(s) in "
            f"{len(ts_ids(output))} tomograms by the similarity of their TomoTwin embeddings (threshold: "
            f"{self._describeThreshold()})."
            + (f" The expected false-discovery rate is {fdr:.2f}." if fdr == fdr else "")
        ]

    # ------------------------------ helpers ------------------------------
    def _getEmbedding(self, tsId: str) -> TomogramEmbedding:
        return self.inputEmbeddings.get()[{TomogramEmbedding.TS_ID_FIELD: tsId}]

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

    def _locatedDigest(self, tsId: str) -> str:
        """Of everything that the candidates in one tomogram depend on."""
        with self._lock:
            embedding = file_stamp(self._getEmbedding(tsId).getFileName())
            return self._digest(*self._searchSettings(), *self._minScoreArgs(), embedding)

    def _outputDigest(self, tsId: str) -> str:
        return self._digest(self._locatedDigest(tsId), *self._thresholdArgs())

    def _getBoxSize(self) -> int:
        """Edge of the box that holds the largest target."""
        return self._boxOf(max(target.diameter for target in read_measured(self._getReferencesFile()).values()))

    def _boxOf(self, diameter: float) -> int:
        """Edge of the box for a particle of this diameter (A) in voxels of the tomogram, unless the form says it: even, and
        with the room about the particle that averaging wants."""
        if self.boxSize.get() > 0:
            return self.boxSize.get()
        return box_of(diameter, self.inputEmbeddings.get().getSamplingRate())

    def _createOutput(self) -> SetOfCoordinates3D:
        embeddings = self.inputEmbeddings.get()
        output = self._createSetOfCoordinates3D(embeddings.getTomograms(asPointer=True))
        output.setSamplingRate(embeddings.getSamplingRate())
        output.setBoxSize(self._getBoxSize())
        return output
