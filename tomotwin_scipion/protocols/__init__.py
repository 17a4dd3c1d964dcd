"""Protocols of the plugin, found by Scipion under the names given here."""

from .protocol_embed_tomograms import ProtTwinEmbedTomograms
from .protocol_reference_picking import ProtTwinReferencePicking

__all__ = ["ProtTwinEmbedTomograms", "ProtTwinReferencePicking"]
