"""Several processes that train one network, each on mini-tomograms of its own (`torchrun --nproc-per-node N -m
tomotwin_core.cli.main train ...`).

The loss is that of one process with all windows: every process gathers the others' embeddings and computes the whole
loss, with gradients through its own embeddings only. Summed over the processes these are the whole loss's gradients
exactly. What differs from one process: batch norm takes its statistics from the windows of its own process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import distributed

from tomotwin_core.errors import UserError


@dataclass(frozen=True)
class World:
    """This process's number, how many there are, and whether it is the one that writes."""

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        return self.rank == 0

    def gathered(self, embeddings: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All processes' embeddings (n, d) and labels (n,), own ones with their gradients, in the order of the ranks."""
        if self.size == 1:
            return embeddings, labels
        count = torch.tensor([len(labels)], device=labels.device)
        counts = [torch.zeros_like(count) for _ in range(self.size)]
        distributed.all_gather(counts, count)
        most = int(max(int(c) for c in counts))
        # One message: the label travels as one more column (exact in float32 up to 16 million species).
        sent = torch.zeros(most, embeddings.shape[1] + 1, device=embeddings.device)
        sent[: len(labels), :-1] = embeddings.detach()
        sent[: len(labels), -1] = labels.float()
        received = [torch.empty_like(sent) for _ in range(self.size)]
        distributed.all_gather(received, sent)
        parts = [part[: int(n)] for part, n in zip(received, counts, strict=True)]
        everyone = [embeddings if rank == self.rank else part[:, :-1] for rank, part in enumerate(parts)]
        return torch.cat(everyone), torch.cat([part[:, -1].long() for part in parts])

    def total(self, value: float, device: torch.device) -> float:
        """Sum over all processes."""
        if self.size == 1:
            return value
        number = torch.tensor([value], dtype=torch.float64, device=device)
        distributed.all_reduce(number)
        return float(number)

    @torch.no_grad()
    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by their sums over all processes, in one message."""
        tensors = list(tensors)
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1).float() for t in tensors])
        distributed.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    @torch.no_grad()
    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace floating-point tensors by their means over all processes."""
        chosen = [t for t in tensors if t.is_floating_point()]
        self.add_up(chosen)
        if self.size > 1:
            for tensor in chosen:
                tensor /= self.size

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()


def join_world(device: str) -> tuple[World, str]:
    """The world that `torchrun` started this process in, and the device that is its own; alone without torchrun."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(), device
    if device.startswith("cuda"):
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(
                f"torchrun started {local + 1} processes or more here and there are {torch.cuda.device_count()} GPUs; "
                "give --nproc-per-node the number of GPUs"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return World(distributed.get_rank(), size), device


def leave_world() -> None:
    """Close the connections, if there are any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
