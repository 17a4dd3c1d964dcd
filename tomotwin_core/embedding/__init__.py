"""Dense embedding in tiles, and the embedding field on disk."""

from tomotwin_core.embedding.dense import DenseEmbedder, grid_shape, pick_device
from tomotwin_core.embedding.field import EmbeddingField, embed_to_disk, open_field

__all__ = ["DenseEmbedder", "EmbeddingField", "embed_to_disk", "grid_shape", "open_field", "pick_device"]
