"""Viewer of training: loss, accuracy, and F1 of seen and unseen species, also while the training runs."""

from functools import partial
from typing import Any, List

from matplotlib.widgets import Button
from pyworkflow.gui.plotter import Plotter
from pyworkflow.viewer import DESKTOP_TKINTER, View, Viewer

from ..objects import TomoTwinModel
from ..protocols import ProtTwinTrainModel
from ..trained import GROUPS, Curves, read_curves

COLOURS = {"seen": "tab:blue", "unseen": "tab:orange"}


class CurvesPlotter(Plotter):
    """Three plots side by side, and a button that reads the log again."""

    def __init__(self, folder: str, title: str) -> None:
        super().__init__(1, 3, figsize=(13, 4.5), windowTitle=title)
        self.tightLayoutOn = False
        self.figure.subplots_adjust(0.05, 0.13, 0.98, 0.84, 0.2)
        self.axes = [self.figure.add_subplot(1, 3, number) for number in (1, 2, 3)]
        self.button = Button(self.figure.add_axes((0.9, 0.92, 0.08, 0.06)), "Read again")
        self.button.on_clicked(partial(self.redraw, folder))
        self.redraw(folder)

    def redraw(self, folder: str, event: Any = None) -> None:
        """Read the log of the run and draw it."""
        curves: Curves = read_curves(folder)
        loss, accuracy, f1 = self.axes
        for axes in self.axes:
            axes.clear()
        loss.plot(curves.steps, curves.loss, color="black", linewidth=1)
        accuracy.plot(curves.steps, curves.accuracy, color="black", linewidth=1)
        for group in GROUPS:
            for points in curves.f1[group].values():
                f1.plot(*zip(*points), color=COLOURS[group], alpha=0.2, linewidth=0.8)
            medians = curves.medians(group)
            if medians:
                f1.plot(*zip(*medians), color=COLOURS[group], marker="o", label=f"{group}, median")
        if f1.lines:
            f1.legend(loc="lower right")
        else:
            f1.text(0.5, 0.5, "no validation yet", ha="center", transform=f1.transAxes)
        loss.set(title="loss", xlabel="step")
        accuracy.set(title="most similar window is of the same species", xlabel="step", ylim=(0, 1))
        f1.set(title="F1 on validation tomograms", xlabel="step", ylim=(0, 1))
        self.figure.canvas.draw_idle()


class TwinTrainingViewer(Viewer):
    """Shows the curves of a training."""

    _name = "TomoTwin training curves"
    _environments = [DESKTOP_TKINTER]
    _targets = [ProtTwinTrainModel, TomoTwinModel]

    def _visualize(self, obj: Any, **kwargs: Any) -> List[View]:
        run = self.getProject().getProtocol(obj.getObjParentId()) if isinstance(obj, TomoTwinModel) else obj
        folder = run._getTrainingFolder()
        if not read_curves(folder).steps:
            lines = "\n".join(run._summary())
            return [self.infoMessage(f"There are no curves: an adapted model has none.\n\n{lines}", self._name)]
        return [CurvesPlotter(folder, f"{self._name}: {run.getRunName()}")]
