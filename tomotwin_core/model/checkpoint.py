"""Model files: weights in safetensors, what they are in a JSON card, both in one file and the card also beside it.

NAME.safetensors   tensors; the card as the header's metadata entry `card`
NAME.json          the same card, for people
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tomotwin_core.checked import Number, Schema, Tuple, checked, parsed_json
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path
from tomotwin_core.model.network import EmbeddingNetwork, NetworkSettings

RELEASED_MODEL = Path(__file__).parent / "data" / "released.safetensors"
_FORMAT = "tomotwin model 1"
# Products of a few such numbers are still finite.
_MOST = 1e9
_Channels = Annotated[int, Field(ge=1, le=65536)]
# That models of earlier versions do not have; they are used without.
_LATER_SETTINGS = ("own_statistics", "usual_within")


class _Network(Schema):
    widths: Annotated[tuple[_Channels, _Channels, _Channels, _Channels, _Channels], Tuple]
    head: _Channels
    embedding_size: _Channels
    own_statistics: Annotated[Number, Field(ge=0, le=1)] = 0.0
    usual_within: Annotated[Number, Field(ge=0)] = 0.0


class _Training(Schema):
    species_trained: list[str] = []
    particles_seen: int = 0


class _Card(Schema):
    format: Literal["tomotwin model 1"]
    network: _Network
    training: _Training = _Training()


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
    """Read a model; None or `released` is the one shipped with the package. UserError if the file is not a model.

    The card says how large the network is, and is believed only where the weights in the file are of just that size: nothing
    is allocated before.
    """
    file = RELEASED_MODEL if path in (None, "released") else Path(str(path))
    tensors, metadata = read_safetensors(file, "a model")
    hint = "give one that `tomotwin train` wrote, or `released`"
    card = header_of(metadata, "card", file, "a tomotwin model file", hint)
    sure = checked(_Card, card, file, "a tomotwin model file", hint)
    settings = NetworkSettings(**sure.network.model_dump())
    with torch.device("meta"):
        wanted = {name: (t.shape, t.dtype) for name, t in EmbeddingNetwork(settings).state_dict().items()}
    if {name: (t.shape, t.dtype) for name, t in tensors.items()} != wanted:
        raise UserError(f"{file}: not a tomotwin model file (its weights are not those of its card); {hint}")
    require_finite(tensors, file, f"not a tomotwin model file; {hint}")
    network = EmbeddingNetwork(settings)
    network.load_state_dict(tensors)
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
            # Copies: what safetensors gives is mapped from the file, changes with it, and kills the process where that is cut.
            return {k: opened.get_tensor(k).clone() for k in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118
    except (PermissionError, MemoryError):
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: not {what} file ({' '.join(str(error).split())[:80]}); give a .safetensors file that tomotwin wrote"
        ) from error


def header_of(metadata: dict[str, str], entry: str, path: Path, what: str, hint: str) -> Any:
    """The JSON that stands in an entry of the metadata; UserError where there is none."""
    try:
        return parsed_json(metadata[entry])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: not {what}; {hint}") from error


def require_finite(tensors: dict[str, torch.Tensor], path: Path, otherwise: str) -> None:
    """UserError where a tensor holds what is no number, or one so large that nothing can be computed with it."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel() and not float(tensor.abs().max()) <= _MOST:  # nor where it is nan
            raise UserError(f"{path}: {name} holds values that are no numbers: {otherwise}")


def require_shape(tensors: dict[str, torch.Tensor], name: str, shape: tuple[int | None, ...], path: Path, otherwise: str) -> torch.Tensor:
    """The floating-point tensor of that name and shape, None for any length; UserError where it is not there or another."""
    found = tensors.get(name)
    fits = found is not None and found.dim() == len(shape) and found.is_floating_point()
    if found is None or not fits or any(n not in (None, m) for n, m in zip(shape, found.shape, strict=True)):
        raise UserError(f"{path}: {name} is missing or of another size: {otherwise}")
    return found
