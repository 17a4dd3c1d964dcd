"""Viewer of clusters: the window on UMAP and slices, whose choice becomes new outputs of the run."""

from typing import Any, List, Optional

from pyworkflow.viewer import DESKTOP_TKINTER, View, Viewer

from tomotwin_view.cluster_files import is_clusters_folder

from ..protocols import ProtTwinClusterPicking
from .viewed_clusters import ViewedClusters


class ClustersView(View):
    """The window on the clusters of a run."""

    def __init__(self, clusters: ViewedClusters, parent: Optional[Any]) -> None:
        super().__init__()
        self.clusters, self._parent = clusters, parent

    def show(self) -> None:
        # Here, since Scipion loads viewers without a screen, too.
        from tomotwin_view.clusters_window import ClustersWindow

        viewed = self.clusters
        title = "TomoTwin clusters: " + viewed.protocol.getRunName()
        self.window = ClustersWindow(
            viewed.session,
            viewed.register,
            viewed.folder,
            viewed.open,
            viewed.engine(),
            "create new outputs",
            title,
            self._parent,
            viewed.engine_options(),
        )
        if self._parent is None:
            self.window.run()


class TwinClustersViewer(Viewer):
    """Shows what recurs in the tomograms, in a UMAP and in slices; clusters are named, merged, discarded and drawn there, and
    each one that is picked becomes a new output."""

    _name = "TomoTwin window on clusters"
    _environments = [DESKTOP_TKINTER]
    _targets = [ProtTwinClusterPicking]

    def _visualize(self, obj: Any, **kwargs: Any) -> List[View]:
        if not is_clusters_folder(obj._getClustersFolder()):
            return [self.errorMessage("There are no clusters yet.", self._name)]
        try:
            viewed = ViewedClusters(obj)
        except (OSError, ValueError) as error:
            return [self.errorMessage(str(error), self._name)]
        return [ClustersView(viewed, self.getTkRoot())]
