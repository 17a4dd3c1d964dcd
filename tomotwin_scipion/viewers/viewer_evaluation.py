"""Viewer of an evaluation: precision against recall, F1 against the threshold, F1 of each tomogram, and the table."""

from typing import Any, Dict, List

from pwem.viewers.views import TableView
from pyworkflow.gui.plotter import Plotter
from pyworkflow.viewer import DESKTOP_TKINTER, View, Viewer

from ..protocols import ProtTwinEvaluatePicks
from ..protocols.evaluation_form import rule_in_words
from ..protocols.protocol_evaluate_picks import POOLED, figure

COLUMNS = {
    "tomogram": "tomogram",
    "label": "kind",
    "n_true": "true",
    "n_picked": "picked",
    "n_right": "right",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "box_f1": "box F1",
    "best_f1": "best F1",
    "best_threshold": "at score",
    "average_precision": "avg. prec.",
    "median_distance_A": "off by (Å)",
}
"""Of the table: the engine's names, and those shown."""

MOST_ROWS_SHOWN = 25
MOST_NAMES_SHOWN = 25


class EvaluationPlotter(Plotter):
    """Three plots side by side; a ring on a curve is where the picks are."""

    def __init__(self, run: ProtTwinEvaluatePicks, title: str) -> None:
        super().__init__(1, 3, figsize=(14, 5), windowTitle=title)
        self.tightLayoutOn = False
        self.figure.subplots_adjust(0.05, 0.2, 0.98, 0.85, 0.2)
        self.figure.suptitle(f"A pick is right: {rule_in_words(run)}")
        self.axes = [self.figure.add_subplot(1, 3, number) for number in (1, 2, 3)]
        pooled, single = run.getScores()
        colours = {row["label"]: f"C{index % 10}" for index, row in enumerate(pooled)}
        self._balance(pooled, run.getCurves(), colours)
        self._tomograms(single, colours)
        for axes in self.axes:
            axes.set_ylim(0, 1.02)
            axes.grid(alpha=0.3)

    def _balance(self, pooled: List[Dict[str, str]], curves: Dict[str, Any], colours: Dict[str, str]) -> None:
        balance, threshold, _ = self.axes
        for row in pooled:
            label, colour = row["label"], colours[row["label"]]
            curve = curves.get(label, {"recall": [], "precision": [], "threshold": [], "f1": []})
            name = f"{label}, F1 {figure(row['f1'])}"
            balance.plot(curve["recall"], curve["precision"], color=colour, label=name)
            balance.plot(float(row["recall"]), float(row["precision"]), "o", mfc="none", mew=2, ms=9, color=colour)
            threshold.plot(curve["threshold"], curve["f1"], color=colour)
            threshold.axhline(float(row["f1"]), color=colour, linewidth=0.8, linestyle=":")
        balance.set(title="precision and recall; rings: the picks", xlabel="recall", ylabel="precision", xlim=(0, 1.02))
        threshold.set(title="F1 at any threshold; dotted: the picks", xlabel="lowest score kept", ylabel="F1")
        balance.legend(loc="lower left", fontsize=8)
        if not curves:
            threshold.text(0.5, 0.5, "the picks have no scores", ha="center", transform=threshold.transAxes)

    def _tomograms(self, single: List[Dict[str, str]], colours: Dict[str, str]) -> None:
        axes, names = self.axes[2], sorted({row["tomogram"] for row in single})
        for label, colour in colours.items():
            rows = [row for row in single if row["label"] == label]
            axes.plot(
                [names.index(row["tomogram"]) for row in rows], [float(row["f1"]) for row in rows], "o", color=colour
            )
        shown = list(range(0, len(names), max(1, len(names) // MOST_NAMES_SHOWN)))
        axes.set_xticks(shown)
        axes.set_xticklabels([names[index] for index in shown], rotation=60, ha="right", fontsize=7)
        axes.set(title="F1 of each tomogram", ylabel="F1")


def table_rows(run: ProtTwinEvaluatePicks) -> List[List[str]]:
    """The table as it is shown: all tomograms together, then each alone."""
    pooled, single = run.getScores()
    counts = ("tomogram", "label", "n_true", "n_picked", "n_right")
    rows = []
    for row in pooled + single:
        cells = [row[name] if name in counts else figure(row[name]) for name in COLUMNS]
        rows.append(["all tomograms" if row["tomogram"] == POOLED else cells[0], *cells[1:]])
    return rows


class TwinEvaluationViewer(Viewer):
    """Shows the scores of picks as curves and as a table."""

    _name = "TomoTwin evaluation"
    _environments = [DESKTOP_TKINTER]
    _targets = [ProtTwinEvaluatePicks]

    def _visualize(self, obj: Any, **kwargs: Any) -> List[View]:
        if not obj.isFinished():
            return [self.errorMessage("The run has not finished yet.", self._name)]
        title = f"{self._name}: {obj.getRunName()}"
        rows = table_rows(obj)
        words = f"A pick is right: {rule_in_words(obj)}. Best F1 is what the best threshold would have given."
        table = TableView(
            list(COLUMNS.values()),
            rows,
            mesg=words,
            title=title,
            height=min(len(rows), MOST_ROWS_SHOWN),
            padding=30,  # its headings are bold, and are measured as if they were not
        )
        return [table, EvaluationPlotter(obj, title)]
