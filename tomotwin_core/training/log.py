"""The log of a training run: a line for people, log.csv and validation.csv for programs, TensorBoard's events.

Rows are steps. After a break the run goes on from its last checkpoint: what was logged beyond it is removed, so that
no step stands there twice.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from tomotwin_core.files import atomic_path

LOG, VALIDATION = "log.csv", "validation.csv"
COLUMNS = (
    "step",
    "loss",
    "nearest_neighbour_accuracy",
    "particles",
    "learning_rate",
    "seconds_per_step",
    "particleness_loss",
)
VALIDATION_COLUMNS = ("step", "group", "species", "mass_kDa", "n_true", "f1", "best_f1")


class TrainingLog:
    """Appends to the log files in a folder; rows after `step`, the one that the run goes on from, are removed first."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        for name, columns in ((LOG, COLUMNS), (VALIDATION, VALIDATION_COLUMNS)):
            old = read_rows(folder / name)
            if old:
                _write(folder / name, columns, [r for r in old if int(r["step"]) <= step])
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def add(self, row: Mapping[str, float]) -> None:
        """One row of figures at a step."""
        _append(self.folder / LOG, COLUMNS, [row])
        for name, value in row.items():
            if name != "step":
                self._events.add_scalar(f"training/{name}", value, int(row["step"]))
        self._events.flush()

    def add_validation(self, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, float]) -> None:
        """The rows of one validation, one for each species, and its summary."""
        _append(self.folder / VALIDATION, VALIDATION_COLUMNS, rows)
        for name, value in summary.items():
            self._events.add_scalar(f"validation/{name}", value, int(rows[0]["step"]))
        self._events.flush()

    def close(self) -> None:
        self._events.close()


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a log file; none where it is missing."""
    if not file.is_file():
        return []
    with open(file, newline="") as lines:
        # A kill in the middle of a line leaves one that is short: its missing cells are None.
        return [row for row in csv.DictReader(lines) if None not in row.values() and row["step"].isdecimal()]


def _append(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    new = not file.exists()
    with open(file, "a", newline="") as lines:
        writer = csv.DictWriter(lines, columns)
        if new:
            writer.writeheader()
        writer.writerows(rows)


def _write(file: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic_path(file) as temporary, temporary.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
