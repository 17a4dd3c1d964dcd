"""What a training run left: its log, its validation, and the card of its model; read without the engine."""

import csv
import json
import os
from statistics import median
from typing import Any, Dict, List, NamedTuple, Tuple

from .targets import read_metadata

LOG, VALIDATION = "log.csv", "validation.csv"
MODEL, BEST = "model.safetensors", "best.safetensors"
GROUPS = ("seen", "unseen")


class Curves(NamedTuple):
    """Of the training: steps, loss and accuracy (share of windows whose most similar other window is of the same species).
    Of the validation: F1 by species over steps, as (step, F1), for species that were `seen` in training and `unseen`."""

    steps: List[int]
    loss: List[float]
    accuracy: List[float]
    f1: Dict[str, Dict[str, List[Tuple[int, float]]]]

    def medians(self, group: str) -> List[Tuple[int, float]]:
        """Median F1 of a group's species at every validation."""
        values: Dict[int, List[float]] = {}
        for points in self.f1[group].values():
            for step, f1 in points:
                values.setdefault(step, []).append(f1)
        return [(step, median(values[step])) for step in sorted(values)]


def read_curves(folder: str) -> Curves:
    """The curves of a run as far as it has come; empty ones before its first line."""
    log = _rows(os.path.join(folder, LOG))
    f1: Dict[str, Dict[str, List[Tuple[int, float]]]] = {group: {} for group in GROUPS}
    for row in _rows(os.path.join(folder, VALIDATION)):
        f1.setdefault(row["group"], {}).setdefault(row["species"], []).append((int(row["step"]), float(row["f1"])))
    return Curves(
        [int(row["step"]) for row in log],
        [float(row["loss"]) for row in log],
        [float(row["nearest_neighbour_accuracy"]) for row in log],
        f1,
    )


def read_card(path: str) -> Dict[str, Any]:
    """What a model file says about its making."""
    return json.loads(read_metadata(path)["card"])


def chosen_file(folder: str) -> str:
    """The model of a run: the one that was best in validation, or without that the last."""
    best = os.path.join(folder, BEST)
    return best if os.path.exists(best) else os.path.join(folder, MODEL)


def _rows(path: str) -> List[Dict[str, str]]:
    if not os.path.exists(path):
        return []
    with open(path, newline="") as file:
        # The run may be writing: of a line that is not whole, cells are missing.
        return [row for row in csv.DictReader(file) if None not in row.values() and row["step"].isdigit()]
