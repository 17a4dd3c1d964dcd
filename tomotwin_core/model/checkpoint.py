"""Model files: weights in safetensors, what they are in a JSON card, both in one file and the card also beside it.

NAME.safetensors   tensors; the card as the header's metadata entry `card`
NAME.json          the same card, for people
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path
from tomotwin_core.model.network import EmbeddingNetwork, NetworkSettings

RELEASED_MODEL = Path(__file__).parent / "data" / "released.safetensors"
_FORMAT = "tomotwin model 1"
# That models of earlier versions do not have; they are used without.
_LATER_SETTINGS = ("own_statistics", "usual_within")


@dataclass(frozen=True)
class Model:
    """A network with its card. `hash` identifies the weights in every file made with them."""

    network: EmbeddingNetwork
    card: dict[str, Any]
    path: Path

    @property
    def hash(self) -> str:
        return weights_hash(self.network)


def weights_hash(network: EmbeddingNetwork) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all weights, and of how they are used."""
    digest = hashlib.sha256()
    for name in _LATER_SETTINGS:
        if value := getattr(network.settings, name):  # models from before there was such a thing keep their names
            digest.update(f"{name} {value:g}".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def save_model(path: Path | str, network: EmbeddingNetwork, card: dict[str, Any]) -> None:
    """Write NAME.safetensors and NAME.json; each appears whole or not at all."""
    path = Path(path)
    full = {"format": _FORMAT, "network": network.settings.as_dict(), "hash": weights_hash(network), **card}
    write_safetensors(path, network.state_dict(), {"card": json.dumps(full)})
    with atomic_path(path.with_suffix(".json")) as temporary:
        Path(temporary).write_text(json.dumps(full, indent=1) + "\n")


def load_model(path: Path | str | None = None) -> Model:
    """Read a model; None or `released` is the one shipped with the package. UserError if the file is not a model."""
    file = RELEASED_MODEL if path in (None, "released") else Path(str(path))
    tensors, metadata = read_safetensors(file, "a model")
    try:
        card = json.loads(metadata["card"])
        if card["format"] != _FORMAT:
            raise KeyError("format")
        settings = dict(card["network"])
        settings["widths"] = tuple(settings["widths"])
        for name in _LATER_SETTINGS:
            settings.setdefault(name, 0.0)
        network = EmbeddingNetwork(NetworkSettings(**settings))
        network.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{file}: not a tomotwin model file; give one that `tomotwin train` wrote, or `released`"
        ) from error
    return Model(network.eval(), card, file)


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Tensors and metadata as a safetensors file, whole or not at all (the library's own writer makes it private)."""
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(plain, metadata=metadata))


def read_safetensors(path: Path, what: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; UserError in one sentence if it is missing or something else."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give {what} file (.safetensors)")
    try:
        with safe_open(str(path), framework="pt") as opened:
            return {k: opened.get_tensor(k) for k in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: not {what} file ({str(error)[:80]}); give a .safetensors file that tomotwin wrote"
        ) from error
