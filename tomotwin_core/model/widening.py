"""A wider network that computes what a narrow one does, to train on from there; and the way back from where that led.

New channels look at their input with random weights, and nothing looks at them yet: their outgoing weights are zero. So
the outputs are those of the narrow network but for rounding, and the gradient reaches the new channels' outgoing
weights at the first step, their incoming ones at the second (after Chen, Goodfellow, Shlens 2016, "Net2Net", who split
channels instead).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from tomotwin_core.model.network import EmbeddingNetwork, NetworkSettings


def settings_for_start(start: NetworkSettings, wanted: NetworkSettings) -> NetworkSettings:
    """The start's own, each block as wide as is wanted where that is wider. The default settings want nothing, and an
    embedding's size stays."""
    if wanted == NetworkSettings():
        return start
    widths = tuple(max(pair) for pair in zip(start.widths, wanted.widths, strict=True))
    return replace(start, widths=widths, head=max(start.head, wanted.head))  # type: ignore[arg-type]


def widened(network: EmbeddingNetwork, settings: NetworkSettings, seed: int = 0) -> EmbeddingNetwork:
    """A network of these settings, at least as wide everywhere, with the outputs of `network`; its new weights are drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wide = EmbeddingNetwork(settings)
    old = network.state_dict()
    with torch.no_grad():
        for name, tensor in wide.state_dict().items():
            known = old[name]
            if tensor.dim() == 5:
                # Into the channels that were there before: from the new ones nothing, from the old ones as before.
                tensor[: known.shape[0]] = 0
            tensor[tuple(slice(side) for side in known.shape)] = known
    return wide


def between(start: EmbeddingNetwork, end: EmbeddingNetwork, share: float, seed: int = 0) -> EmbeddingNetwork:
    """The network that lies `share` of the straight way from where a training started to where it ended.

    A long training forgets some of what its start knew of data that it does not see, and learns what is true of its own data
    alone; between the two lie weights that are as good on that and better elsewhere (Wortsman et al. 2022, "Robust fine-tuning of
    zero-shot models").

    start : as it was given; widened as the training did that, with its `training.seed`, where it is narrower.
    """
    first, last = widened(start, end.settings, seed).state_dict(), end.state_dict()
    network = EmbeddingNetwork(end.settings)
    network.load_state_dict(
        {k: torch.lerp(first[k], last[k], share) if last[k].is_floating_point() else last[k] for k in last}
    )
    return network
