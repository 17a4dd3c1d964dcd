"""The state of a training run on disk, in files of at most 16 MB.

    last.safetensors              tensors, and as metadata the counters and the names of further parts
    last.STEP.1.safetensors ...   further tensors, where they do not fit into one file

The first file is written last and names the others: a run that is killed while it writes leaves the state before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from tomotwin_core.checked import Count, Number, Schema, checked
from tomotwin_core.model.checkpoint import header_of, read_safetensors, require_finite, write_safetensors

# Of a file, with room for its header.
MOST_BYTES = 16_000_000 - 100_000
_NAME = "last.safetensors"


_Part = Annotated[str, Field(pattern=r"^last\.\d{1,15}\.\d{1,6}\.safetensors$")]


class _Schedule(Schema):
    factor: Annotated[Number, Field(gt=0, le=1)]
    best: Number | None
    waited: Count
    looked: list[Number]


class _Counters(Schema):
    """What is not there the trainer misses, where it needs it."""

    step: Count
    particles: Count = 0
    seconds: Annotated[Number, Field(ge=0)] = 0.0
    n_averaged: Count = 0
    schedule: _Schedule | None = None
    best: dict[str, Number] = {}


class _Parts(Schema):
    names: list[_Part]


def write_state(folder: Path, tensors: dict[str, torch.Tensor], counters: dict[str, Any]) -> None:
    """Write the state; the one before is replaced."""
    parts: list[dict[str, torch.Tensor]] = [{}]
    room = MOST_BYTES
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if size > room and parts[-1]:
            parts.append({})
            room = MOST_BYTES
        parts[-1][name] = tensor
        room -= size
    names = [f"last.{counters['step']}.{i}.safetensors" for i in range(1, len(parts))]
    for name, part in zip(names, parts[1:], strict=True):
        write_safetensors(folder / name, part, {})
    write_safetensors(folder / _NAME, parts[0], {"counters": json.dumps(counters), "parts": json.dumps(names)})
    for old in folder.glob("last.*.*.safetensors"):
        if old.name not in names:
            old.unlink()


def read_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Tensors and counters of the state in a folder, None where there is none; UserError where it cannot be read."""
    file = folder / _NAME
    if not file.is_file():
        return None
    tensors, metadata = read_safetensors(file, "a training state")
    hint = "give another --out folder"
    counters = header_of(metadata, "counters", file, "a training state", hint)
    sure = checked(_Counters, counters, file, "a training state", hint)
    parts = header_of({"parts": "[]", **metadata}, "parts", file, "a training state", hint)
    for name in checked(_Parts, {"names": parts}, file, "a training state", hint).names:
        tensors |= read_safetensors(folder / name, "a part of the training state")[0]
    require_finite(tensors, file, hint)
    return tensors, {**counters, **sure.model_dump(exclude_unset=True)}
