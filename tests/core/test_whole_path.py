"""The whole path with the released model: a planted molecule comes back where it was planted, whatever the voxel size.

simulate -> embed -> reference -> locate -> pick, by the commands a user types; positions are read from the files that
other software reads.
"""

from pathlib import Path

import numpy as np
import pytest
import starfile
from numpy.typing import NDArray

from tomotwin_core.cli.main import main
from tomotwin_core.coordinates import Coordinates, read_coordinates, write_coordinates
from tomotwin_core.embedding import open_field
from tomotwin_core.model import load_model
from tomotwin_core.picking import ReferenceSet, ReferenceSettings, locate, references_from_densities
from tomotwin_core.simulation import Acquisition
from tomotwin_core.structures import load_density

MODEL = "released"
SPECIES = "1dzl"
DOSE = 400.0
TOLERANCE_A = 10.0  # a voxel of the model, half a step of the embedding grid: no frame is off by more
# Of references from a few examples, each looked up at its nearest place of the grid, which is off by up to half a step again.
EXAMPLES_TOLERANCE_A = 15.0
# Nearer to a face the window is cut by it.
MARGIN_A = 100.0


def run(*arguments: object) -> None:
    assert main([str(a) for a in arguments]) == 0


class Planted:
    """A simulated tomogram of a few copies of one molecule, embedded; the copies that lie away from its faces."""

    def __init__(self, folder: Path, voxel_size_A: float) -> None:
        self.folder, self.voxel_size_A = folder, voxel_size_A
        shape = [int(side / voxel_size_A) for side in (420, 1000, 1000)]
        run(
            "simulate", "--out", folder, "--tomograms", 1, "--species", SPECIES, "--voxel-size", voxel_size_A,
            "--shape", *shape, "--thickness", 220, "--copies", 16, "--dose", DOSE, "--tilt-step", 4,
            "--defocus", 3, 3, "--seed", 3, "--threads", 1,
        )  # fmt: skip
        run("embed", folder / "tomo_01.mrc", "--out", folder / "emb", "--model", MODEL, "--threads", 1)
        self.embedding = folder / "emb" / "tomo_01.zarr"
        self.truth = read_coordinates(folder / "tomo_01_truth.star")
        to_face = np.minimum(self.truth.xyz, np.array(shape[::-1]) - 1 - self.truth.xyz).min(1) * voxel_size_A
        self.inner = np.flatnonzero(to_face > MARGIN_A)
        assert len(self.inner) >= 4

    def errors_A(self, xyz: NDArray[np.float64], copies: NDArray[np.intp]) -> NDArray[np.float64]:
        """Distance along each axis from true copies to their nearest picks, (n, 3) in A."""
        true = self.truth.xyz[copies]
        nearest = np.linalg.norm(true[:, None] - xyz[None], axis=-1).argmin(1)
        return np.asarray(np.abs(xyz[nearest] - true) * self.voxel_size_A)


@pytest.fixture(scope="module", params=[8.0, 13.3])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return Planted(tmp_path_factory.mktemp(f"planted_{request.param:g}"), request.param)


def test_a_planted_copy_comes_back_from_other_copies_as_examples_in_every_format(planted: Planted) -> None:
    held = planted.inner[0]
    out = planted.folder / "picks"
    others: Coordinates = planted.truth.select(planted.inner[1:])
    write_coordinates(planted.folder / "examples.star", others)
    run(
        "reference", f"planted={planted.folder / 'examples.star'}", "--embedding", planted.embedding,
        "--out", planted.folder / "refs.safetensors", "--threads", 1,
    )  # fmt: skip
    run("locate", planted.embedding, "--references", planted.folder / "refs.safetensors", "--out", out)
    peaks = read_coordinates(out / "tomo_01_peaks.star")
    best = peaks.select(np.arange(len(planted.truth)))
    errors = planted.errors_A(best.xyz, planted.inner)
    assert errors.max() < EXAMPLES_TOLERANCE_A, "they are the best peaks, in their places"
    for kind in ("star", "relion4", "relion5"):
        run(
            "pick",
            out / "tomo_01_peaks.star",
            "--threshold",
            best.score[-1] - 1e-6,
            "--format",
            kind,
            "--out",
            out / kind,
        )
        path = out / kind / "tomo_01_picks.star"
        picks = read_coordinates(path)
        assert planted.errors_A(picks.xyz, np.array([held])).max() < EXAMPLES_TOLERANCE_A
        assert picks.shape == planted.truth.shape and set(picks.label) == {"planted"}
        assert (picks.score > 0).all()
        # As other software reads it: RELION 4 in voxels from the corner, RELION 5 in A from the middle.
        particles = starfile.read(path, always_dict=True)["particles"]
        assert set(particles["rlnTomoName"]) == {"tomo_01"}
        if kind == "relion5":
            centred = particles[[f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"]].to_numpy()
            xyz = centred / planted.voxel_size_A + np.array(planted.truth.shape[::-1]) / 2  # type: ignore[index]
        else:
            xyz = particles[[f"rlnCoordinate{a}" for a in "XYZ"]].to_numpy()
        np.testing.assert_allclose(planted.errors_A(xyz, planted.inner), errors, atol=0.01)


@pytest.fixture(scope="module")
def from_structure() -> ReferenceSet:
    """The target as it looks in simulated tomograms of the same dose, smaller ones than by default."""
    settings = ReferenceSettings(shape=(44, 90, 90), tomograms=2, crowd=4)
    acquisition = Acquisition(dose_e_per_A2=DOSE, tilt_step_deg=4.0, defocus_um=3.0)
    density = load_density(f"library:{SPECIES}")
    return references_from_densities({SPECIES: density}, load_model(MODEL), acquisition, settings)


def test_a_planted_molecule_comes_back_from_its_structure_alone(planted: Planted, from_structure: ReferenceSet) -> None:
    peaks = locate(open_field(planted.embedding), from_structure)
    best = peaks.select(np.arange(len(planted.truth)))
    errors = planted.errors_A(best.xyz, planted.inner)
    assert np.linalg.norm(errors, axis=1).max() < max(from_structure.targets[0].diameter_A / 4, 20.0), "a right pick"
    assert np.median(errors, axis=0).max() < TOLERANCE_A
