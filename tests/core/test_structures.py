"""Atomic models, maps and the library -> densities: mass and centre of what was planted come back."""

import gzip
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import gemmi
import numpy as np
import pytest
from scipy import ndimage

from tomotwin_core.errors import UserError
from tomotwin_core.structures import (
    Density,
    DensityLibrary,
    build,
    density_from_map,
    density_from_points,
    load_density,
    load_library,
)
from tomotwin_core.structures.atoms import read_atoms
from tomotwin_core.structures.build import assign_families, build_library, similarity_of_shapes
from tomotwin_core.structures.density import at_voxel_size, read_density_map
from tomotwin_core.tomogram import write_mrc

SEQUENCE = ("ALA", "GLY", "TRP", "LYS", "SER", "GLU")
# Average masses of the residues in a chain (Da), as every table of proteomics has them.
RESIDUE_DA = {"ALA": 71.08, "GLY": 57.05, "TRP": 186.21, "LYS": 128.17, "SER": 87.08, "GLU": 129.12}
FULL = (("N", "N"), ("CA", "C"), ("C", "C"), ("O", "O"))


def structure(
    atoms: Sequence[tuple[str, str]] = FULL, waters: int = 0, copies: int = 1, zinc: bool = False
) -> gemmi.Structure:
    """A peptide along x, one residue every 3.8 A, with waters; a biological assembly of `copies`, 50 A apart along y."""
    made = gemmi.Structure()
    made.name = "planted"
    model = gemmi.Model(1)
    chain = gemmi.Chain("A")
    for i, name in enumerate(SEQUENCE):
        residue = _residue(name, i + 1, gemmi.EntityType.Polymer, atoms, (3.8 * i, 0.0, 0.0))
        residue.subchain = "A"
        chain.add_residue(residue)
    if zinc:
        chain.add_residue(_residue("ZN", 100, gemmi.EntityType.NonPolymer, (("ZN", "Zn"),), (0.0, 0.0, 0.0)))
    for i in range(waters):
        chain.add_residue(_residue("HOH", 200 + i, gemmi.EntityType.Water, (("O", "O"),), (100.0, 100.0, 10.0 * i)))
    model.add_chain(chain)
    made.add_model(model)
    if copies > 1:
        made.assemblies.append(_assembly(copies))
    made.setup_entities()
    return made


def _residue(
    name: str, number: int, kind: gemmi.EntityType, atoms: Sequence[tuple[str, str]], at: tuple[float, float, float]
) -> gemmi.Residue:
    residue = gemmi.Residue()
    residue.name, residue.seqid, residue.entity_type = name, gemmi.SeqId(str(number)), kind
    for offset, (atom_name, element) in enumerate(atoms):
        atom = gemmi.Atom()
        atom.name, atom.element = atom_name, gemmi.Element(element)
        atom.pos = gemmi.Position(at[0], at[1] + 0.5 * offset, at[2])
        residue.add_atom(atom)
    return residue


def _assembly(copies: int) -> gemmi.Assembly:
    assembly = gemmi.Assembly("1")
    generator = gemmi.Assembly.Gen()
    generator.chains, generator.subchains = ["A"], ["A"]
    for i in range(copies):
        operator = gemmi.Assembly.Operator()
        operator.transform.vec.fromlist([0.0, 50.0 * i, 0.0])
        generator.operators.append(operator)
    assembly.generators.append(generator)
    return assembly


def written(made: gemmi.Structure, path: Path) -> Path:
    """Write by the name's ending, gzipped or not."""
    text = (
        made.make_pdb_string() if ".pdb" in path.name or ".ent" in path.name else made.make_mmcif_document().as_string()
    )
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def ellipsoid(edge: int, centre: tuple[float, float, float], semi_axes: tuple[float, float, float]) -> np.ndarray:
    """A soft-edged ellipsoid of height 1, [z, y, x]."""
    grid = np.indices((edge, edge, edge)).astype(float)
    distance = np.sqrt(sum(((g - c) / s) ** 2 for g, c, s in zip(grid, centre, semi_axes, strict=True)))
    return np.clip((1.2 - distance) / 0.4, 0, 1).astype(np.float32)


def centre_of_mass(values: np.ndarray) -> np.ndarray:
    grid = np.indices(values.shape).reshape(3, -1)
    return np.asarray((grid * values.ravel()).sum(1) / values.sum())


@pytest.mark.parametrize("ending", [".cif", ".pdb", ".ent", ".cif.gz", ".pdb.gz"])
def test_a_peptide_weighs_what_its_sequence_weighs_in_every_format(tmp_path: Path, ending: str) -> None:
    points = read_atoms(written(structure(), tmp_path / f"peptide{ending}"))
    assert points.total_kDa * 1000 == pytest.approx(sum(RESIDUE_DA[name] for name in SEQUENCE), abs=1.5)
    assert len(points.xyz_A) == len(SEQUENCE) * len(FULL)
    assert points.xyz_A[:, 0].max() == pytest.approx(3.8 * (len(SEQUENCE) - 1), abs=1e-3), "columns are x, y, z"


def test_a_trace_of_one_atom_per_residue_weighs_the_same_as_the_full_model(tmp_path: Path) -> None:
    full = read_atoms(written(structure(), tmp_path / "full.cif"))
    trace = read_atoms(written(structure([("CA", "C")]), tmp_path / "trace.cif"))
    with_hydrogens = read_atoms(written(structure([*FULL, ("H", "H"), ("HA", "H")]), tmp_path / "hydrogens.cif"))
    assert len(trace.xyz_A) == len(SEQUENCE)
    assert trace.total_kDa == pytest.approx(full.total_kDa, rel=1e-9)
    assert with_hydrogens.total_kDa == pytest.approx(full.total_kDa, rel=1e-9)


@pytest.mark.parametrize("ending", [".cif", ".pdb"])
def test_the_biological_assembly_is_built_where_the_file_names_one(tmp_path: Path, ending: str) -> None:
    path = written(structure(copies=2), tmp_path / f"dimer{ending}")
    monomer, dimer = read_atoms(path, assembly=False), read_atoms(path)
    assert dimer.total_kDa == pytest.approx(2 * monomer.total_kDa)
    shift = np.sort(dimer.xyz_A[:, 1])[len(monomer.xyz_A) :] - np.sort(monomer.xyz_A[:, 1])
    np.testing.assert_allclose(shift, 50.0, atol=1e-3)


def test_water_is_removed_and_a_bound_metal_stays(tmp_path: Path) -> None:
    dry = read_atoms(written(structure(), tmp_path / "dry.pdb"))
    wet = read_atoms(written(structure(waters=40), tmp_path / "wet.pdb"))
    metal = read_atoms(written(structure(waters=40, zinc=True), tmp_path / "metal.pdb"))
    assert wet.total_kDa == pytest.approx(dry.total_kDa)
    assert 60 < (metal.total_kDa - dry.total_kDa) * 1000 < 75


def test_points_become_a_density_of_their_mass_about_their_centre_of_mass() -> None:
    rng = np.random.default_rng(0)
    xyz, mass = rng.normal(500, (30, 20, 10), (400, 3)), rng.uniform(50, 200, 400)
    density = density_from_points(xyz, mass, 5.0)
    assert density.mass_kDa == pytest.approx(mass.sum() / 1000, rel=1e-4)
    np.testing.assert_allclose(centre_of_mass(density.values), (np.array(density.values.shape) - 1) / 2, atol=0.05)
    spread = [
        np.sqrt(
            np.average(
                (np.indices(density.values.shape)[a] - (density.values.shape[a] - 1) / 2) ** 2, weights=density.values
            )
        )
        * 5
        for a in range(3)
    ]
    np.testing.assert_allclose(
        spread, np.sqrt(np.square((10, 20, 30)) + 4.0**2), rtol=0.1, err_msg="the array is [z, y, x]"
    )


@pytest.mark.parametrize("voxel_size_A", [5.0, 8.0, 10.0, 13.3, 30.0])
def test_another_voxel_size_keeps_mass_and_centre(voxel_size_A: float) -> None:
    rng = np.random.default_rng(1)
    lopsided = np.concatenate([rng.normal(0, 15, (300, 3)), rng.normal((80, 0, 30), 10, (60, 3))])
    fine = density_from_points(lopsided, np.full(360, 300.0), 5.0)
    coarse = at_voxel_size(fine, voxel_size_A)
    assert coarse.voxel_size_A == voxel_size_A
    assert coarse.mass_kDa == pytest.approx(108.0, rel=1e-4)
    assert set(np.array(coarse.values.shape) % 2) == {1}, "the middle is a voxel"
    np.testing.assert_allclose(centre_of_mass(coarse.values), (np.array(coarse.values.shape) - 1) / 2, atol=0.1)


def test_the_diameter_of_a_ball_is_that_of_the_ball() -> None:
    rng = np.random.default_rng(2)
    points = rng.uniform(-1, 1, (60000, 3))
    ball = 60.0 * points[np.linalg.norm(points, axis=1) < 1]
    assert density_from_points(ball, np.ones(len(ball)), 5.0).diameter_A == pytest.approx(120.0, rel=0.08)


def test_a_map_on_an_offset_becomes_a_density_of_the_mass_it_fills_or_is_told(tmp_path: Path) -> None:
    semi_axes = (10.0, 8.0, 6.0)
    planted = ellipsoid(48, (20.0, 25.0, 27.0), semi_axes)
    noise = np.random.default_rng(3).normal(0, 0.01, planted.shape)
    write_mrc(tmp_path / "map.mrc", (700 + 3 * (planted + noise)).astype(np.float32), 5.0)
    measured = load_density(str(tmp_path / "map.mrc"))
    expected_kDa = 4 / 3 * np.pi * np.prod(semi_axes) * 5.0**3 / 1.21 / 1000
    assert measured.mass_kDa == pytest.approx(expected_kDa, rel=0.25)
    np.testing.assert_allclose(centre_of_mass(measured.values), (np.array(measured.values.shape) - 1) / 2, atol=0.1)
    assert measured.diameter_A == pytest.approx(2 * 10 * 5.0, rel=0.15)
    assert load_density(str(tmp_path / "map.mrc"), mass_kDa=250.0).mass_kDa == pytest.approx(250.0, rel=1e-4)


def test_a_library_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    library = DensityLibrary({}, {})
    densities = {
        name: density_from_points(rng.normal(0, size, (500, 3)), np.full(500, 100.0), 5.0)
        for name, size in (("small", 10), ("large", 40))
    }
    for name, density in densities.items():
        library.add(name, density, name=f"the {name} one", source="a test", licence="none")
    library.save(tmp_path / "planted.npz")
    back = load_library(tmp_path / "planted.npz")
    assert back.ids() == ["large", "small"] and back.entries == library.entries
    for name, density in densities.items():
        assert back.density(name).mass_kDa == pytest.approx(density.mass_kDa, rel=1e-4)
        np.testing.assert_allclose(back.density(name).values, density.values, atol=density.values.max() / 200)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["planted.json", "planted.npz"]


def test_the_released_library_opens_with_the_masses_and_diameters_of_its_manifest() -> None:
    library = load_library()
    assert len(library.ids("heldout")) >= 12 and len(library.ids("train")) >= 50
    assert not {library.entries[i].family for i in library.ids("heldout")} & {
        library.entries[i].family for i in library.ids("train")
    }
    for name in [*library.ids()[::15], "4v6x", "1dzl"]:
        density, entry = library.density(name), library.entries[name]
        assert density.mass_kDa == pytest.approx(entry.mass_kDa, rel=0.01, abs=0.2), name
        assert density.diameter_A == pytest.approx(entry.diameter_A, rel=0.05), name
        assert np.abs(centre_of_mass(density.values) - (density.values.shape[0] - 1) / 2).max() < 1.0, name


def test_the_same_shape_is_found_again_whatever_its_orientation_and_another_is_not() -> None:
    rng = np.random.default_rng(5)
    rod = rng.uniform(-1, 1, (800, 3)) * (120, 25, 25)
    turned = rod[:, [1, 2, 0]]
    ball = rng.normal(0, 40, (800, 3))
    mass = np.full(800, 100.0)
    similarity = similarity_of_shapes([density_from_points(p, mass, 5.0) for p in (rod, turned, ball)], n_rotations=400)
    assert similarity[0, 1] > 0.95
    assert similarity[0, 2] < 0.85
    np.testing.assert_allclose(similarity, similarity.T)


def test_a_library_is_built_from_a_folder_and_its_look_alikes_share_a_family(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "similarity_of_shapes", partial(similarity_of_shapes, n_rotations=300))
    write_mrc(tmp_path / "ball.mrc", ellipsoid(40, (19.5, 19.5, 19.5), (8, 8, 8)), 5.0)
    write_mrc(tmp_path / "ball2.mrc", ellipsoid(44, (21.5, 21.5, 21.5), (8.2, 8, 8)), 5.0)
    write_mrc(tmp_path / "rod.mrc", ellipsoid(60, (29.5, 29.5, 29.5), (22, 5, 5)), 5.0)
    written(structure(copies=2), tmp_path / "peptide.cif")
    (tmp_path / "manifest.csv").write_text("id,name,mw_kda,source,licence\nrod,a rod,500,measured,free\n")
    library = build_library(tmp_path)
    assign_families(library, n_heldout=1)
    entries = library.entries
    assert library.ids() == ["ball", "ball2", "peptide", "rod"]
    assert entries["rod"].mass_kDa == 500.0 and entries["rod"].name == "a rod" and entries["rod"].licence == "free"
    assert entries["ball"].family == entries["ball2"].family != entries["rod"].family
    assert entries["ball"].split == entries["ball2"].split


def test_bad_sources_are_told_in_one_sentence_each(tmp_path: Path) -> None:
    (tmp_path / "text.cif").write_text("this is no structure\n")
    (tmp_path / "text.pdb").write_text("neither is this\n")
    (tmp_path / "broken.cif.gz").write_bytes(b"\x1f\x8b\x08\x00not really")
    (tmp_path / "empty").mkdir()
    written(structure([]), tmp_path / "atomless.cif")
    write_mrc(tmp_path / "constant.mrc", np.full((20, 20, 20), 3.0, np.float32), 5.0)
    write_mrc(tmp_path / "nan.mrc", np.full((20, 20, 20), np.nan, np.float32), 5.0)
    dark = -ellipsoid(24, (11.5, 11.5, 11.5), (5, 5, 5))
    write_mrc(tmp_path / "dark.mrc", np.minimum(dark, -0.0), 5.0)
    for source, words in {
        "missing.cif": "no such", "missing.mrc": "no such", "text.cif": "cannot be read", "text.pdb": "no atoms", "broken.cif.gz": "cannot be read",
        "atomless.cif": "no atoms", "constant.mrc": "constant", "nan.mrc": "NaN", "dark.mrc": "molecule is dark",
    }.items():  # fmt: skip
        with pytest.raises(UserError) as problem:
            load_density(str(tmp_path / source))
        assert words in str(problem.value) and "\n" not in str(problem.value), source
        assert source in str(problem.value) or source == "dark.mrc"
    with pytest.raises(UserError, match="library:nope: no such molecule"):
        load_density("library:nope")
    with pytest.raises(UserError, match="holds no"):
        build_library(tmp_path / "empty")
    with pytest.raises(UserError, match="no density library"):
        load_library(tmp_path / "nothing.npz")


def test_a_library_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text('{"entries": []}')
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "cut.json").write_text('{"entries": []}')
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 cut short")
    for name in ("text", "cut"):
        with pytest.raises(UserError, match="not a density library"):
            load_library(tmp_path / f"{name}.npz")


def test_an_id_of_the_pdb_without_a_network_names_the_address_that_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(url: str, timeout: float) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(UserError) as problem:
        load_density("pdb:4V6X")
    assert "https://files.rcsb.org/download/4v6x.cif.gz" in str(problem.value) and "\n" not in str(problem.value)
    with pytest.raises(UserError, match="not a PDB id"):
        load_density("pdb:../../etc")


def test_a_density_is_what_its_parts_say() -> None:
    values = np.zeros((5, 5, 5), np.float32)
    values[2, 2, 2] = 1500.0
    assert Density(values, 4.0).mass_kDa == 1.5
    with pytest.raises(UserError, match="no voxel above its border"):
        density_from_map(np.zeros((8, 8, 8)), 5.0)


def test_a_map_finer_than_any_tomogram_is_taken_and_keeps_its_mass(tmp_path: Path) -> None:
    molecule = load_library().density("1bcf")
    fine = ndimage.zoom(molecule.values, molecule.voxel_size_A / 0.8, order=1)
    write_mrc(tmp_path / "fine.mrc", fine, 0.8)
    assert read_density_map(tmp_path / "fine.mrc").mass_kDa == pytest.approx(molecule.mass_kDa, rel=0.2)
