"""Protocol *evaluate picks*: picks and true positions in; scores, and what is right, false and missed, out."""

import csv
import json
import math
from typing import Any, Dict, List

from pyworkflow import BETA
from tomo.objects import SetOfCoordinates3D

from .. import Plugin
from ..compared import (
    Rows,
    Verdicts,
    copied,
    group_table,
    kind_names,
    read_verdicts,
    write_candidates,
    write_compared,
)
from ..constants import OUTPUT_FALSE, OUTPUT_MISSED, OUTPUT_RIGHT
from ..targets import GROUPS_FILE
from .evaluation_form import (
    BY_BOXES,
    chosen_candidates,
    chosen_diameters,
    chosen_kinds,
    chosen_tomograms,
    define_evaluation_params,
    rule_in_words,
    validate_evaluation,
    warn_of_evaluation,
)
from .picking_report import MOST_TOMOGRAMS_SHOWN, read_rows, write_rows
from .protocol_base import TwinProtocol
from .streaming import file_stamp

SCORES_FILE, CURVES_FILE, MATCHES_FILE, PLOT_FILE = "scores.csv", "curves.csv", "matches.csv", "plot.png"
SETTINGS = ("criterion", "tolerance", "minIou", "diameter", "kinds", "pairs", "tomograms", "useCandidates")
POOLED = "all"
"""In the column of tomograms: all of them together."""


class ProtTwinEvaluatePicks(TwinProtocol):
    """Compares picks with positions where particles really are.

    For each kind of particle, over all tomograms and in each: precision (which share of the picks is right), recall (which
    share of the particles was found), F1 (their harmonic mean), and the best F1 that another threshold would have given.
    *Analyze Results* shows them as a table and as curves.

    The outputs are the picks that are right, the picks that are false, and the particles that were missed, to be looked at
    or to be taken further; they keep scores, groups and orientations. Any picks can be compared, not only this software's.
    """

    _label = "evaluate picks"
    _devStatus = BETA
    _possibleOutputs = {
        OUTPUT_RIGHT: SetOfCoordinates3D,
        OUTPUT_FALSE: SetOfCoordinates3D,
        OUTPUT_MISSED: SetOfCoordinates3D,
    }

    # ------------------------------ form ------------------------------
    def _defineParams(self, form: Any) -> None:
        define_evaluation_params(form)

    # ------------------------------ steps ------------------------------
    def _insertAllSteps(self) -> None:
        files = [self._getExtraPath(name) for name in (SCORES_FILE, CURVES_FILE, MATCHES_FILE, PLOT_FILE, GROUPS_FILE)]
        settings = self._digest(*self._settings(), self._lost(*files, *self._outputFiles()))
        self._insertFunctionStep(self.evaluateStep, settings, needsGPU=False)
        self._insertFunctionStep(self.createOutputStep, settings, needsGPU=False)

    def _settings(self) -> List[Any]:
        """Everything that the result depends on."""
        values = [getattr(self, name).get() for name in SETTINGS]
        return values + [file_stamp(pointer.get().getFileName()) for pointer in (self.inputPicks, self.inputTruth)]

    def evaluateStep(self, settings: str) -> None:
        """Write both sets as the engine reads them, and have it compare them."""
        picks, truth = self.inputPicks.get(), self.inputTruth.get()
        tsIds, kinds = chosen_tomograms(self), chosen_kinds(self)
        diameters = chosen_diameters(self, kinds)
        rows = {
            "picks": write_compared(picks, tsIds, kinds.picks, diameters, self._getTable("picks")),
            "truth": write_compared(truth, tsIds, kinds.truth, diameters, self._getTable("truth")),
        }
        with open(self._getExtraPath("rows.json"), "w") as file:
            json.dump(rows, file)
        args: List[Any] = [self._getTable("picks"), "--truth", self._getTable("truth")]
        candidates = chosen_candidates(self, tsIds)
        if candidates is not None:
            write_candidates(picks, candidates, kinds.picks, diameters, self._getTable("candidates"))
            args += ["--candidates", self._getTable("candidates")]
        rule = ["boxes", "--min-iou", self.minIou.get()] if self.criterion == BY_BOXES else ["distance"]
        args += ["--criterion", *rule, "--tolerance", self.tolerance.get()]
        args += ["--by-tomogram", self._getExtraPath(SCORES_FILE), "--curves", self._getExtraPath(CURVES_FILE)]
        args += ["--matches", self._getExtraPath(MATCHES_FILE), "--plot", self._getExtraPath(PLOT_FILE)]
        Plugin.runTomotwin(self, "evaluate", args, expected=self._getExtraPath(MATCHES_FILE))

    def createOutputStep(self, settings: str) -> None:
        """Make the sets of what is right, false and missed. Empty ones are left out, but where an earlier start has made one:
        what the project knows of cannot be taken from it here."""
        picks, truth, kinds = self.inputPicks.get(), self.inputTruth.get(), chosen_kinds(self)
        table, groups = group_table(kinds, kind_names(picks), chosen_diameters(self, kinds))
        write_rows(self._getExtraPath(GROUPS_FILE), table)
        found = self._readVerdicts()
        chosen: Dict[str, Any] = {
            OUTPUT_RIGHT: (self.inputPicks, picks, found.right, None),
            OUTPUT_FALSE: (self.inputPicks, picks, found.false, None),
            OUTPUT_MISSED: (self.inputTruth, truth, set(found.missed), lambda one: groups[found.missed[one]]),
        }
        for name, (pointer, source, ids, regrouped) in chosen.items():
            if ids or hasattr(self, name):
                output = SetOfCoordinates3D.create(self._getPath(), suffix=name)
                copied(source, output, ids, regrouped)
                self._defineOutputs(**{name: output})
                self._defineSourceRelation(pointer, output)

    def _readVerdicts(self) -> Verdicts:
        with open(self._getExtraPath("rows.json")) as file:
            rows: Dict[str, Rows] = json.load(file)
        return read_verdicts(self._getExtraPath(MATCHES_FILE), rows["picks"], rows["truth"])

    # ------------------------------ info ------------------------------
    def _validate(self) -> List[str]:
        return validate_evaluation(self)

    def _warnings(self) -> List[str]:
        return warn_of_evaluation(self)

    def _summary(self) -> List[str]:
        if not self.isFinished():
            return ["Output is not ready yet."] + self._failureSummary()
        pooled, single = self.getScores()
        lines = [
            f"A pick is right: {rule_in_words(self)}.",
            "Kind: right of picked, of true; precision, recall, F1 (best):",
        ]
        lines += ["  *{label}*:  {n_right} of {n_picked}, of {n_true};  ".format(**row) + rates(row) for row in pooled]
        names = sorted({row["tomogram"] for row in single})
        if len(names) > 1:
            lines.append("Tomogram, kind: precision, recall, F1 (best):")
            shown = [row for row in single if row["tomogram"] in names[:MOST_TOMOGRAMS_SHOWN]]
            lines += ["  {tomogram}, {label}:  ".format(**row) + rates(row) for row in shown]
        if len(names) > MOST_TOMOGRAMS_SHOWN:
            lines.append(
                f"  and {len(names) - MOST_TOMOGRAMS_SHOWN} tomograms more, in the file {SCORES_FILE} of the extra folder"
            )
        return lines

    def _methods(self) -> List[str]:
        if not self.isFinished():
            return []
        pooled, single = self.getScores()
        scores = "; ".join(f"{row['label']} F1 {figure(row['f1'])}" for row in pooled)
        true, tomograms = sum(int(row["n_true"]) for row in pooled), len({row["tomogram"] for row in single})
        return [
            f"Picks were compared with {true} true positions in {tomograms} tomograms, matched one to one; a pick is right: "
            f"{rule_in_words(self)}. Result: {scores}."
        ]

    def _citations(self) -> List[str]:
        return ["Rice2023"]

    # ------------------------------ for the viewer ------------------------------
    def getScores(self) -> Any:
        """Rows of the table of scores: those of all tomograms together, and those of each alone."""
        rows = read_rows(self._getExtraPath(SCORES_FILE))
        pooled = [row for row in rows if row["tomogram"] == POOLED]
        return pooled, rows[len(pooled) :]

    def getCurves(self) -> Dict[str, Dict[str, List[float]]]:
        """By kind the columns threshold, precision, recall and f1, from the highest threshold on."""
        found: Dict[str, Dict[str, List[float]]] = {}
        with open(self._getExtraPath(CURVES_FILE), newline="") as file:
            for row in csv.DictReader(file):
                columns = found.setdefault(row["label"], {})
                for name in ("threshold", "precision", "recall", "f1"):
                    columns.setdefault(name, []).append(float(row[name]))
        return found

    def _getTable(self, name: str) -> str:
        return self._getExtraPath(name + ".star")


def rates(row: Dict[str, str]) -> str:
    """Precision, recall, F1 and best F1 of a row of scores."""
    text = ", ".join(figure(row[name]) for name in ("precision", "recall", "f1"))
    best = float(row["best_f1"])
    at = "" if math.isnan(float(row["best_threshold"])) else f" at {figure(row['best_threshold'])}"
    return text + ("" if math.isnan(best) else f" ({best:.2f}{at})")


def figure(text: str) -> str:
    """A number with two decimals, a dash for what cannot be said."""
    return "-" if math.isnan(float(text)) else f"{float(text):.2f}"
