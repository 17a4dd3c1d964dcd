"""Viewers of the plugin, found by Scipion under the names given here."""

from .viewer_clusters import TwinClustersViewer
from .viewer_embeddings import TwinEmbeddingsViewer
from .viewer_evaluation import TwinEvaluationViewer
from .viewer_masks import TwinMasksViewer
from .viewer_picks import TwinPicksViewer
from .viewer_training import TwinTrainingViewer

__all__ = [
    "TwinClustersViewer",
    "TwinEmbeddingsViewer",
    "TwinEvaluationViewer",
    "TwinMasksViewer",
    "TwinPicksViewer",
    "TwinTrainingViewer",
]
