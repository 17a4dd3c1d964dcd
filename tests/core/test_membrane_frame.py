"""The bilayer about a membrane protein is found from its alpha carbons; the released library's frames are right."""

from pathlib import Path

import gemmi
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tomotwin_core.structures import DensityLibrary, load_density, load_library
from tomotwin_core.structures.atoms import AlphaCarbons, read_alpha_carbons
from tomotwin_core.structures.membrane_frame import MembraneFrame, find_membrane

OILY, POLAR = ("LEU", "ILE", "VAL", "PHE", "ALA"), ("LYS", "GLU", "SER", "ASN", "ASP", "GLN")
FOURFOLD = ("6dvw", "3iyz", "6b85")


def bundle(rng: np.random.Generator, oily: bool = True, helices: int = 7) -> list[AlphaCarbons]:
    """Helices along z about an axis, oily within 15 A of z = 0, and a polar ball of residues above."""
    chains = []
    for h in range(helices):
        i = np.arange(40)
        x, y = (9.5 * f(2 * np.pi * h / helices) if h else 0.0 for f in (np.cos, np.sin))
        z = 1.5 * i - 29.25
        turn = np.deg2rad(100 * i)
        xyz = np.stack([x + 2.3 * np.cos(turn), y + 2.3 * np.sin(turn), z], axis=1)
        names = tuple(str(rng.choice(OILY if oily and abs(h) < 15 else POLAR)) for h in z)
        chains.append(AlphaCarbons(f"H{h}", xyz, names, i))
    ball = rng.normal(size=(400, 3))
    ball = ball / np.linalg.norm(ball, axis=1)[:, None] * 28 * rng.random((400, 1)) ** (1 / 3) + (0, 0, 60)
    names = tuple(str(rng.choice(POLAR)) for _ in range(400))
    return [*chains, AlphaCarbons("B", ball, names, np.arange(400))]


def moved(chains: list[AlphaCarbons], turn: Rotation, shift: NDArray[np.float64]) -> list[AlphaCarbons]:
    return [AlphaCarbons(c.chain, turn.apply(c.xyz_A) + shift, c.residues, c.numbers) for c in chains]


@pytest.mark.parametrize("seed", range(4))
def test_the_slab_of_a_planted_bundle_is_found_wherever_it_is_turned(seed: int) -> None:
    rng = np.random.default_rng(seed)
    turn, shift = Rotation.random(random_state=seed), rng.uniform(-200, 200, 3)
    frame = find_membrane(moved(bundle(rng), turn, shift), np.array([10.0, 20.0, 30.0]))
    assert frame is not None and frame.confidence > 0.3 and frame.energy_kcal_per_mol < -20
    up = turn.apply([0, 0, 1])
    assert np.rad2deg(np.arccos(np.dot(frame.normal, up))) < 8, "towards the larger part"
    height = (np.array(frame.centre_A) + (10, 20, 30) - shift) @ up
    assert abs(height) < 3


def test_a_soluble_protein_has_none() -> None:
    assert find_membrane(bundle(np.random.default_rng(1), oily=False), np.zeros(3)) is None
    assert find_membrane([], np.zeros(3)) is None


def test_a_symmetric_complex_has_its_axis_as_normal() -> None:
    rng = np.random.default_rng(2)
    one = bundle(rng, helices=3)[:3]
    protomer = AlphaCarbons(
        "A", np.concatenate([c.xyz_A for c in one]) + (14, 3, 0), sum((c.residues for c in one), ()), np.arange(120)
    )
    turn = Rotation.random(random_state=3)
    chains = [
        AlphaCarbons(
            str(k),
            turn.apply(Rotation.from_euler("z", 90 * k, degrees=True).apply(protomer.xyz_A)),
            protomer.residues,
            protomer.numbers,
        )
        for k in range(4)
    ]
    frame = find_membrane(chains, np.zeros(3))
    assert frame is not None
    assert abs(np.dot(frame.normal, turn.apply([0, 0, 1]))) > 0.9999


def as_file(chains: list[AlphaCarbons], path: Path) -> Path:
    structure, model = gemmi.Structure(), gemmi.Model(1)
    for c, name in zip(chains, "ABCDEFGHIJ", strict=False):
        chain = gemmi.Chain(name)
        for xyz, residue_name, number in zip(c.xyz_A, c.residues, c.numbers, strict=True):
            residue, atom = gemmi.Residue(), gemmi.Atom()
            residue.name, residue.seqid = residue_name, gemmi.SeqId(int(number) + 1, " ")
            atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(*xyz)
            residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    structure.add_model(model)
    structure.write_pdb(str(path))
    return path


def test_a_structure_file_brings_its_bilayer_along_counted_from_its_centre_of_mass(tmp_path: Path) -> None:
    chains = moved(bundle(np.random.default_rng(4)), Rotation.identity(), np.array([50.0, 60.0, 70.0]))
    path = as_file(chains, tmp_path / "bundle.pdb")
    assert [len(c.xyz_A) for c in read_alpha_carbons(path)] == [40] * 7 + [400]
    density = load_density(str(path))
    assert density.membrane is not None
    # More than half of the mass is the ball, 60 A above the bilayer.
    assert -50 < density.membrane.centre_A[2] < -25
    soluble = load_density(str(as_file(bundle(np.random.default_rng(5), oily=False), tmp_path / "soluble.pdb")))
    assert soluble.membrane is None


def test_a_library_keeps_the_frames(tmp_path: Path) -> None:
    frame = MembraneFrame((0.0, 0.6, 0.8), (1.0, -2.0, 3.5), 0.75, -33.0)
    path = as_file(bundle(np.random.default_rng(6)), tmp_path / "bundle.pdb")
    density = load_density(str(path))
    library = DensityLibrary({}, {})
    library.add("in", density.__class__(density.values, 5.0, 4.0, frame), name="in", source="", licence="")
    library.add("out", density.__class__(density.values, 5.0, 4.0), name="out", source="", licence="")
    library.save(tmp_path / "library.npz")
    back = load_library(tmp_path / "library.npz")
    assert back.density("in").membrane == frame and back.density("out").membrane is None
    assert back.entries == library.entries


def turned_about(values: NDArray[np.float32], axis: NDArray[np.float64], angle_deg: float) -> NDArray[np.float64]:
    half = (values.shape[0] - 1) / 2
    z, y, x = np.meshgrid(*(np.arange(n) - half for n in values.shape), indexing="ij")
    points = np.stack([x, y, z]).reshape(3, -1)
    matrix = Rotation.from_rotvec(np.deg2rad(angle_deg) * axis).as_matrix()
    places = (matrix.T @ points)[::-1] + half
    return np.asarray(ndimage.map_coordinates(values, places, order=1).reshape(values.shape))


@pytest.mark.parametrize("name", FOURFOLD)
def test_tetramers_of_the_released_library_have_their_fourfold_axis_along_the_normal(name: str) -> None:
    density = load_library().density(name)
    assert density.membrane is not None and density.membrane.confidence > 0.7
    normal = np.array(density.membrane.normal)
    across = np.linalg.svd(normal[None])[2][1]
    values = ndimage.gaussian_filter(density.values, 1.0)

    def self_correlation(axis: NDArray[np.float64]) -> float:
        return float(np.corrcoef(values.ravel(), turned_about(values, axis, 90).ravel())[0, 1])

    assert self_correlation(normal) > 0.97
    assert self_correlation(across) < 0.9


def test_released_frames_are_unit_normals_through_the_molecule_towards_its_larger_part() -> None:
    library = load_library()
    seated = [i for i in library.entries if library.entries[i].membrane]
    assert {"6dvw", "5gjv", "5t4o", "4ry2", "5d0o", "3sn6", "2z73", "1bgy"} <= set(seated)
    assert not {"4v6x", "1aon", "1g3i", "1dzl", "6qzp"} & set(seated)
    for name in seated:
        frame = library.entries[name].membrane
        assert frame is not None and np.linalg.norm(frame.normal) == pytest.approx(1.0, abs=1e-3)
        density = library.density(name)
        index = np.argwhere(density.values > 0.2 * density.values.max())
        xyz_A = (index - (np.array(density.values.shape) - 1) / 2)[:, ::-1] * density.voxel_size_A
        height = (xyz_A - frame.centre_A) @ np.array(frame.normal)
        assert np.mean(np.abs(height) < 10) > 0.02, "the bilayer passes through the molecule"
        assert (height > -5).mean() > 0.45, name


def test_atp_synthase_lies_with_its_small_part_in_the_membrane() -> None:
    frame = load_library().entries["5t4o"].membrane
    assert frame is not None
    below = -np.dot(frame.centre_A, frame.normal)
    assert 80 < below < 130, "F1 is the heavy part, about 100 A above the bilayer's middle"
