"""Small runs of the commands that write much, and what they leave behind, compared without dates and durations."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

TRAINING = (
    "--steps", "4", "--workers", "1", "--species", "4", "--shape", "40", "48", "48", "--validate-every", "0", "--threads", "1",
    "--set", "network.widths=[4,5,6,8,10]", "--set", "network.head=12", "--set", "training.log_every=1",
    "--set", "training.checkpoint_every=1",
)  # fmt: skip


def call(command: str, good: Path, out: Path) -> list[str]:
    """The words of a call that writes into a folder; `good` holds the files of good_files.py."""
    words = {
        "embed": ["embed", good / "volume.mrc", "--model", good / "model.safetensors", "--out", out, "--threads", "1"],
        "locate": ["locate", good / "tomo.zarr", "--references", good / "own.safetensors", "--out", out, "--min-score", "-1"],
        "cluster": [
            "cluster", good / "tomo.zarr", "--no-library", "--fast-map", "--salience", "0", "--fewest", "3", "--out", out, "--threads", "1",
        ],
        "convert": ["convert", good / "star.star", "--format", "copick", "--out", f"{out}/"],
        "simulate": [
            "simulate", "--out", out, "--tomograms", "2", "--species", "1dzl", "--copies", "3", "--shape", "24", "40", "40",
            "--voxel-size", "12", "--tilt-step", "20", "--threads", "1", "--tilt-series", "--labels",
        ],
        "train": ["train", "--out", out, *TRAINING],
    }  # fmt: skip
    return [str(word) for word in words[command]]


def started(words: list[str], **options: object) -> subprocess.Popen[str]:
    """The command in a session of its own, so that what it leaves running can be found."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tomotwin_core.cli.main", *words],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True, "env": environment, **options},  # type: ignore[call-overload]
    )


def still_running(session: int) -> list[int]:
    """Processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, own = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:4]
        except (OSError, ValueError):
            continue
        if int(own) == session and state not in "ZX":
            found.append(int(folder.name))
    return found


def unfinished(folder: Path) -> list[Path]:
    """What must not stay behind."""
    return [p for p in folder.rglob(".*") if p.name.startswith((".part-", ".old-", ".lock", ".ready-"))]


def state_of(folder: Path) -> dict[str, str]:
    """Every file's content in 16 digits, without what is another every time."""
    return {str(p.relative_to(folder)): _content(p) for p in sorted(folder.rglob("*")) if p.is_file() and _counts(p)}


def _counts(path: Path) -> bool:
    return not ({"tensorboard"} & set(path.parts) or path.suffix in (".png", ".csv") or path.name.startswith("."))


def _content(path: Path) -> str:
    digest = hashlib.sha256()
    if path.suffix == ".safetensors":
        for name, tensor in sorted(load_file(path).items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    elif path.suffix == ".json" and path.with_suffix(".safetensors").is_file():
        digest.update(json.dumps(sorted(json.loads(path.read_text()))).encode())  # a card, of times and dates
    elif path.suffix in (".json", ".star", ".toml"):
        digest.update(re.sub(r'\\?"(date|command)\\?": ?\\?".*?\\?"', "", path.read_text()).encode())
    else:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
