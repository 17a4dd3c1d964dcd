"""Viewer of picks: the picking window, whose result becomes a new output of the run."""

from typing import Any, List, Optional

from pyworkflow.viewer import DESKTOP_TKINTER, View, Viewer
from tomo.objects import SetOfCoordinates3D

from ..constants import OUTPUT_COORDINATES
from ..protocols import ProtTwinReferencePicking
from .viewed_picks import ViewedPicks


class PicksView(View):
    """The window on a set of coordinates."""

    def __init__(self, picks: ViewedPicks, parent: Optional[Any]) -> None:
        super().__init__()
        self.picks, self._parent = picks, parent

    def show(self) -> None:
        # Here, since Scipion loads viewers without a screen, too.
        from tomotwin_view.window import PicksWindow

        title = "TomoTwin picks: " + self.picks.protocol.getRunName()
        save = "create new output"
        self.window = PicksWindow(self.picks.session, self.picks.register, save, title, self._parent)
        if self._parent is None:
            self.window.run()


class TwinPicksViewer(Viewer):
    """Filters picks by score, size and by hand on slices of their tomograms, and makes a new output of what stays."""

    _name = "TomoTwin picking window"
    _environments = [DESKTOP_TKINTER]
    _targets = [ProtTwinReferencePicking, SetOfCoordinates3D]

    def _visualize(self, obj: Any, **kwargs: Any) -> List[View]:
        if isinstance(obj, SetOfCoordinates3D):
            protocol, coordinates = self.getProject().getProtocol(obj.getObjParentId()), obj
        else:
            protocol, coordinates = obj, getattr(obj, OUTPUT_COORDINATES, None)
        if coordinates is None or not coordinates.getSize():
            return [self.errorMessage("There are no picks yet.", "TomoTwin picks")]
        return [PicksView(ViewedPicks(coordinates, protocol), self.getTkRoot())]
