"""The whole way to a structure, in Scipion with the real engine and with RELION: two tomograms of 30 copies or so.

simulate -> import -> embed -> reference picking -> orient picks -> extract subtomograms -> RELION's average -> FSC
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from conftest import Run, require_engine, require_neighbours, require_relion, tomotwin

SPECIES, VOXEL_SIZE_A = "1aon", 8.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_engine()
    folder = tmp_path_factory.mktemp("structure")
    tomotwin("simulate", "--out", folder, "--tomograms", 2, "--species", f"{SPECIES}=40,2buk=10,6fml=10", "--voxel-size",
             VOXEL_SIZE_A, "--shape", 56, 130, 130, "--tilt-step", 4, "--ctf-corrected", "--references")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def done(in_scipion: Run, data: Path) -> Any:
    require_neighbours()
    require_relion()
    return in_scipion("structure.py", data, VOXEL_SIZE_A, SPECIES, neighbours=True)


def true_of(data: Path, tsId: str) -> Any:
    from tomotwin_core.coordinates import read_coordinates

    return read_coordinates(data / f"{tsId}_truth.star").by_label()[SPECIES]


def rightness(data: Path, places: list[dict[str, Any]]) -> tuple[list[bool], list[float], list[float]]:
    """Of each place whether a particle is there, and of those the distance (A) and the angle (degrees) from how it lies."""
    from tomotwin_core.evaluation import match, tolerance_A
    from tomotwin_core.structures import load_density
    from tomotwin_core.subtomograms.symmetry import cyclic_turns

    density = load_density(f"library:{SPECIES}")
    turns = cyclic_turns(density, 7)  # GroEL/GroES
    right, distances, angles = [False] * len(places), [], []
    for tsId in sorted({place["tsId"] for place in places}):
        which = [i for i, place in enumerate(places) if place["tsId"] == tsId]
        truth = true_of(data, tsId)
        xyz = np.array([places[i]["xyz"] for i in which])
        found, true = match(xyz * VOXEL_SIZE_A, truth.xyz * VOXEL_SIZE_A, tolerance_A(density.diameter_A))
        for i, j in zip(found, true, strict=True):
            right[which[i]] = True
            distances.append(float(np.linalg.norm(xyz[i] - truth.xyz[j]) * VOXEL_SIZE_A))
            matrix = np.array(places[which[i]]["matrix"])[:3, :3]
            # Scipion's matrix takes the particle back to the reference.
            traces = [np.trace(matrix @ truth.rotation[j] @ turn) for turn in turns]
            angles.append(float(np.degrees(np.arccos(np.clip((max(traces) - 1) / 2, -1, 1)))))
    return right, distances, angles


def test_orienting_turns_picks_as_the_particles_lie_and_tells_false_ones(done: Any, data: Path) -> None:
    right, distances, angles = rightness(data, done["all"])
    assert sum(right) >= 40 and len(done["all"]) == len([p for p in done["picked"] if p["group"] == done["group"]])
    assert np.median(distances) < 0.75 * VOXEL_SIZE_A
    assert np.median(angles) < 6 and np.mean(np.array(angles) < 20) > 0.9
    correlation = np.array([place["correlation"] for place in done["all"]])
    false = ~np.array(right)
    assert false.sum() >= 5
    kept, *_ = rightness(data, done["kept"])
    assert sum(kept) >= 0.95 * sum(right)  # right ones stay
    assert len(kept) - sum(kept) <= 0.3 * false.sum()
    assert np.median(correlation[~false]) > 2 * np.median(correlation[false])


def test_relions_average_of_the_picks_is_the_molecule(done: Any, data: Path) -> None:
    from tomotwin_core.evaluation.resolution import density_in_box, shell_correlation
    from tomotwin_core.structures import load_density

    assert done["average_voxel_size"] == VOXEL_SIZE_A and 25 <= done["subtomograms"] <= len(done["kept"])
    average = mrcfile.read(done["average"]).astype(np.float64)
    density = load_density(f"library:{SPECIES}")
    truth = density_in_box(density, len(average), VOXEL_SIZE_A)
    fsc = shell_correlation(average, truth, VOXEL_SIZE_A, density.diameter_A)
    assert fsc.resolution_A(0.5) < 32
    mirrored = shell_correlation(average[:, :, ::-1], truth, VOXEL_SIZE_A, density.diameter_A)
    assert fsc.correlation[4:8].mean() > mirrored.correlation[4:8].mean() + 0.05


def test_the_summary_says_what_was_kept_and_cut_out(done: Any) -> None:
    text = "\n".join(done["summary"])
    assert f"*{len(done['kept'])} oriented picks* of {len(done['picked'])}" in text
    assert f"*{done['subtomograms']} subtomograms* of {len(done['kept'])} picks" in text
