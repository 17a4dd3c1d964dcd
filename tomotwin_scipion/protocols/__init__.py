"""Protocols of the plugin, found by Scipion under the names given here."""

from .protocol_embed_tomograms import ProtTwinEmbedTomograms
from .protocol_reference_picking import ProtTwinReferencePicking
from .protocol_simulate_tomograms import ProtTwinSimulateTomograms

__all__ = ["ProtTwinEmbedTomograms", "ProtTwinReferencePicking", "ProtTwinSimulateTomograms"]
