"""The network, its checkpoint with its card, the released weights."""

from tomotwin_core.model.checkpoint import Model, load_model, save_model
from tomotwin_core.model.network import EMBEDDING_SIZE, HALF_WINDOW, STRIDE, WINDOW, EmbeddingNetwork, NetworkSettings

__all__ = [
    "EMBEDDING_SIZE",
    "HALF_WINDOW",
    "STRIDE",
    "WINDOW",
    "EmbeddingNetwork",
    "Model",
    "NetworkSettings",
    "load_model",
    "save_model",
]
