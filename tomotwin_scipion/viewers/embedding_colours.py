"""Colours of embeddings, which the engine makes when they are first looked at, and which are kept beside the embedding."""

import hashlib
import os
import shlex
import subprocess
from typing import Dict, List, Optional

import mrcfile
import numpy as np
from pyworkflow.utils import makePath

from .. import Plugin

MOST_FITTED = 6
"""The colours are fitted to so many tomograms of a set, so that they mean the same in all of it."""

FOLDER = "colours"


class EmbeddingColours:
    """Colours of the tomograms of one set, made one after the other by commands that run beside the window.

    Parameters
    ----------
    zarrs
        Embedding of each tomogram, by tsId.
    folder
        Where the colours are kept.
    """

    def __init__(self, zarrs: Dict[str, str], folder: str) -> None:
        self.zarrs = zarrs
        names = sorted(zarrs)
        chosen = np.unique(np.linspace(0, len(names) - 1, min(MOST_FITTED, len(names))).round().astype(int))
        self.fitted = [zarrs[names[index]] for index in chosen]
        states = [(path, os.stat(path).st_mtime_ns) for path in self.fitted]
        self.folder = os.path.join(folder, FOLDER, hashlib.sha256(repr(states).encode()).hexdigest()[:8])
        self._running: Dict[str, subprocess.Popen[str]] = {}
        self._errors: Dict[str, str] = {}

    def ask(self, tsId: str) -> None:
        """Have the colours of a tomogram made, unless they are there."""
        if tsId in self._running or self._are_there(tsId):
            return
        makePath(self.folder)
        words = [self.zarrs[tsId], "--pca", "--fit", *self.fitted, "--out", self.folder]
        call = f"{Plugin.getProgram()} map " + " ".join(shlex.quote(word) for word in words)
        self._running[tsId] = subprocess.Popen(
            ["bash", "-c", call],
            env=Plugin.getEnviron(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )

    def look(self, tsId: str) -> Optional[np.ndarray]:
        """Colours [z, y, x, 3] from 0 to 1 on the embedding's grid; None while they are made.

        Raises
        ------
        RuntimeError
            When they could not be made, with the engine's sentence.
        """
        process = self._running.get(tsId)
        if process is not None and process.poll() is None:
            return None
        if process is not None:
            lines = (process.communicate()[1] or "").strip().splitlines()
            del self._running[tsId]
            if process.returncode:
                self._errors[tsId] = lines[-1] if lines else f"tomotwin map ended with {process.returncode}."
        if tsId in self._errors:
            raise RuntimeError(self._errors[tsId])
        if not self._are_there(tsId):
            return None
        return np.stack([_read(path) for path in self._paths(tsId)], axis=-1)

    def _are_there(self, tsId: str) -> bool:
        made = os.stat(self.zarrs[tsId]).st_mtime_ns
        return all(os.path.exists(path) and os.stat(path).st_mtime_ns >= made for path in self._paths(tsId))

    def _paths(self, tsId: str) -> List[str]:
        return [os.path.join(self.folder, f"{tsId}_pca{number}.mrc") for number in (1, 2, 3)]


def _read(path: str) -> np.ndarray:
    with mrcfile.open(path, permissive=True) as file:
        return np.array(file.data)
