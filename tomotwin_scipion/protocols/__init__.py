"""Protocols of the plugin, found by Scipion under the names given here."""

from .protocol_cluster_picking import ProtTwinClusterPicking
from .protocol_create_mask import ProtTwinCreateMask
from .protocol_embed_tomograms import ProtTwinEmbedTomograms
from .protocol_evaluate_picks import ProtTwinEvaluatePicks
from .protocol_extract_subtomograms import ProtTwinExtractSubtomograms
from .protocol_orient_picks import ProtTwinOrientPicks
from .protocol_reference_picking import ProtTwinReferencePicking
from .protocol_simulate_tomograms import ProtTwinSimulateTomograms
from .protocol_train_model import ProtTwinTrainModel

__all__ = [
    "ProtTwinClusterPicking",
    "ProtTwinCreateMask",
    "ProtTwinEmbedTomograms",
    "ProtTwinEvaluatePicks",
    "ProtTwinExtractSubtomograms",
    "ProtTwinOrientPicks",
    "ProtTwinReferencePicking",
    "ProtTwinSimulateTomograms",
    "ProtTwinTrainModel",
]
