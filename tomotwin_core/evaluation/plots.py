"""Scores as a picture: precision against recall, F1 against the threshold, F1 of each tomogram."""

from collections.abc import Sequence
from os import PathLike

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tomotwin_core.evaluation.details import Curve
from tomotwin_core.evaluation.scores import SpeciesScore
from tomotwin_core.files import atomic_path


def scores_plot(
    path: str | PathLike[str],
    pooled: Sequence[SpeciesScore],
    single: Sequence[tuple[str, SpeciesScore]],
    found: Sequence[Curve],
    title: str = "",
) -> None:
    """Draw three panels and write the picture (PNG by its ending).

    A ring on a curve is where the picks are; of species without scores only the ring is there.
    """
    figure = Figure(figsize=(13, 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    balance, threshold, tomograms = figure.subplots(1, 3, squeeze=False)[0]
    colours = {score.label: f"C{index % 10}" for index, score in enumerate(pooled)}
    by_label = {curve.label: curve for curve in found}
    for score in pooled:
        colour, curve = colours[score.label], by_label[score.label]
        balance.plot(curve.recall, curve.precision, color=colour, label=f"{score.label}, F1 {score.f1:.2f}")
        balance.plot(score.recall, score.precision, "o", mfc="none", mew=2, ms=9, color=colour)
        threshold.plot(curve.threshold, curve.f1, color=colour)
        threshold.axhline(score.f1, color=colour, linewidth=0.8, linestyle=":")
    balance.set(xlabel="recall", ylabel="precision", title="precision and recall; rings: the picks")
    threshold.set(xlabel="lowest score kept", ylabel="F1", title="F1 at any threshold; dotted: the picks")
    balance.set_xlim(0, 1.02)
    balance.legend(loc="lower left", fontsize=8)
    _by_tomogram(tomograms, single, colours)
    for axes in (balance, threshold, tomograms):
        axes.set_ylim(0, 1.02)
        axes.grid(alpha=0.3)
    if title:
        figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _by_tomogram(axes: Axes, single: Sequence[tuple[str, SpeciesScore]], colours: dict[str, str]) -> None:
    names = sorted({name for name, _ in single})
    for label, colour in colours.items():
        points = [(names.index(name), score.f1) for name, score in single if score.label == label]
        axes.plot(*zip(*points, strict=True), "o", color=colour) if points else None
    shown = range(0, len(names), max(1, len(names) // 20))
    axes.set_xticks(list(shown), [names[index] for index in shown], rotation=60, ha="right", fontsize=7)
    axes.set(ylabel="F1", title="F1 of each tomogram")
