"""What a reference is taken for: markers and solvent left out, maps cleaned, told or refused."""

from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from tomotwin_core.errors import UserError
from tomotwin_core.structures import Density, density_from_points, load_density
from tomotwin_core.structures.build import build_library
from tomotwin_core.tomogram import write_mrc

RNG = np.random.default_rng(0)
PROTEIN = 25 * RNG.normal(size=(300, 3)).clip(-1, 1)


def structure(path: Path, *models: list[tuple[str, str, str, NDArray[np.float64]]]) -> Path:
    """Models of (residue, atom, element, places)."""
    made = gemmi.Structure()
    for number, parts in enumerate(models, 1):
        model = gemmi.Model(number) if gemmi.__version__ >= "0.7" else gemmi.Model(str(number))
        for letter, (name, atom_name, element, places) in zip("ABCDE", parts, strict=False):
            chain = gemmi.Chain(letter)
            for at, place in enumerate(places, 1):
                residue = gemmi.Residue()
                residue.name, residue.seqid = name, gemmi.SeqId(str(at))
                atom = gemmi.Atom()
                atom.name, atom.element, atom.pos = atom_name, gemmi.Element(element), gemmi.Position(*place)
                residue.add_atom(atom)
                chain.add_residue(residue)
            model.add_chain(chain)
        made.add_model(model)
    made.setup_entities()
    made.make_mmcif_document().write_file(str(path))
    return path


def protein(places: NDArray[np.float64] = PROTEIN) -> tuple[str, str, str, NDArray[np.float64]]:
    return "LEU", "CA", "C", places


def grid(height: float, extent: float = 60.0) -> NDArray[np.float64]:
    x, y = np.mgrid[-extent : extent + 1 : 6, -extent : extent + 1 : 6]
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, height)], 1)


@pytest.mark.parametrize(
    ("name", "element"), [("DUM", "O"), ("DUM", "N"), ("MEM", "C"), ("TIP", "O"), ("SOL", "O"), ("SPC", "O"), ("CLA", "Cl")]
)  # fmt: skip
def test_markers_and_solvent_are_no_molecule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, element: str
) -> None:
    alone = load_density(str(structure(tmp_path / "a.cif", [protein()])))
    assert capsys.readouterr().err == ""
    marked = load_density(str(structure(tmp_path / "b.cif", [protein(), (name, element, element, grid(15))])))
    assert marked.mass_kDa == pytest.approx(alone.mass_kDa) and marked.diameter_A == pytest.approx(alone.diameter_A)
    assert f"441 {name} are markers or solvent and left out" in capsys.readouterr().err


def test_a_file_that_is_half_lipid_or_several_models_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two atoms a residue, so that it is no ion.
    lipid = structure(tmp_path / "a.cif", [protein(), ("POP", "C1", "C", np.repeat(grid(15), 4, 0))])
    text = lipid.read_text()
    load_density(str(structure(tmp_path / "c.cif", [protein()], [protein(PROTEIN + 1)])))
    assert "holds 2 models (on one place); the first alone is taken" in capsys.readouterr().err
    load_density(str(structure(tmp_path / "d.cif", [protein()], [protein(PROTEIN + 80)])))
    assert "holds 2 models (which lie apart: parts of an assembly" in capsys.readouterr().err
    assert "POP" in text


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e7, 1e300, -5000.0])
def test_places_that_no_atom_has_are_refused(tmp_path: Path, bad: float) -> None:
    places = PROTEIN.copy()
    places[5, 1] = bad
    path = structure(tmp_path / "a.cif", [protein(places)])
    with pytest.raises(UserError, match=f"{path}.*(no numbers|no molecule is wide|cannot be read|no atoms)"):
        load_density(str(path))
    with pytest.raises(UserError, match="which no molecule does|is too large"):
        density_from_points(places, np.ones(len(places)), 5.0)


def test_atoms_of_no_known_element_are_no_molecule(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no atoms of a molecule"):
        load_density(str(structure(tmp_path / "a.cif", [("UNL", "X1", "X", PROTEIN)])))


# ------------------------------ maps ------------------------------

EDGE, SIZE_A = 40, 8.0
RADIUS = np.linalg.norm(np.indices((EDGE,) * 3).T - (EDGE - 1) / 2, axis=-1).T
BALL = (RADIUS < 7).astype(np.float32)
LONG = ndimage.gaussian_filter((np.abs(np.indices((EDGE,) * 3).T - 19.5) < [10, 4, 5]).all(-1).T.astype(np.float32), 1)
NOISE = RNG.normal(size=(EDGE,) * 3).astype(np.float32)


def loaded(tmp_path: Path, volume: NDArray[Any], size_A: float = SIZE_A, dark: bool = False) -> Density:
    write_mrc(tmp_path / "m.mrc", volume.astype(np.float32), size_A)
    return load_density(str(tmp_path / "m.mrc"), dark_map=dark)


@pytest.mark.parametrize("shape", [BALL, LONG])
@pytest.mark.parametrize("level", [0.05, 0.1, 0.15, 0.2, 0.3])
@pytest.mark.parametrize("masked", [False, True])
def test_noise_around_a_molecule_does_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: NDArray[Any], level: float, masked: bool
) -> None:
    clean = loaded(tmp_path, shape)
    capsys.readouterr()
    noisy = loaded(tmp_path, (shape + level * NOISE) * (RADIUS < 17 if masked else 1))
    assert noisy.diameter_A == pytest.approx(clean.diameter_A, rel=0.2)
    assert noisy.mass_kDa == pytest.approx(clean.mass_kDa, rel=0.45)
    told = capsys.readouterr().err
    assert ("noise around the molecule reaches" in told) or level == 0.05


@pytest.mark.parametrize("level", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("ground", [0.0, 100.0])
def test_a_dark_molecule_is_refused_and_taken_where_it_is_said(tmp_path: Path, level: float, ground: float) -> None:
    volume = (level * NOISE - BALL) * (RADIUS < 18) + ground
    with pytest.raises(UserError, match="the molecule is dark in this map .* --contrast dark"):
        loaded(tmp_path, volume)
    assert loaded(tmp_path, volume, dark=True).diameter_A == pytest.approx(loaded(tmp_path, BALL).diameter_A, rel=0.2)


@pytest.mark.parametrize(
    ("volume", "sentence"),
    [
        (NOISE, "nothing stands out of the noise"),
        (np.abs(NOISE), "nothing stands out of the noise"),
        (-np.abs(NOISE), "nothing stands out of the noise"),
        (ndimage.gaussian_filter(NOISE, 1.5), "nothing stands out of the noise"),
        (np.indices((EDGE,) * 3)[0], "nothing stands out of the noise"),
        (np.where(RADIUS < 0.9, 1e30, NOISE), "only a few voxels"),
        ((RADIUS < 0.9).astype(float), "only a few voxels"),
        (np.full((EDGE,) * 3, 3.0), "the map is constant"),
    ],
)  # fmt: skip
def test_what_is_no_map_of_a_molecule_is_refused(tmp_path: Path, volume: NDArray[Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        loaded(tmp_path, volume)
    assert str(tmp_path / "m.mrc") in str(caught.value)


def test_a_tomogram_is_no_map_and_a_cut_molecule_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="is 4000 A wide, which is no map of one molecule"):
        loaded(tmp_path, np.pad(BALL, 30), 40.0)
    loaded(tmp_path, BALL[12:-12, 16:-16, 12:-12])
    assert "the molecule reaches the border of its map" in capsys.readouterr().err


HALF_BALL = ndimage.shift((RADIUS < 6).astype(float), (4, 0, 0))


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        *((radius > RADIUS, True) for radius in (5, 7, 9, 11, 13)),
        (ndimage.gaussian_filter(BALL, 2), True),
        ((RADIUS < 13) & (RADIUS > 9), False),  # hollow, as capsids are
        (np.maximum(HALF_BALL, HALF_BALL[::-1]), False),
        (LONG, False),
    ],
)
def test_a_ball_is_told_and_what_has_features_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], volume: NDArray[Any], told: bool
) -> None:
    loaded(tmp_path, volume)
    assert ("the map is a ball without features" in capsys.readouterr().err) == told


# ------------------------------ a library ------------------------------


def test_one_molecule_that_cannot_be_read_does_not_stop_a_library(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    structure(tmp_path / "good.cif", [protein()])
    (tmp_path / "bad.cif").write_text("no structure")
    write_mrc(tmp_path / "noise.mrc", NOISE, SIZE_A)
    assert build_library(tmp_path).ids() == ["good"]
    told = capsys.readouterr().err
    assert "bad.cif is left out of the library" in told and "noise.mrc is left out of the library" in told
    (tmp_path / "good.cif").unlink()
    with pytest.raises(UserError, match="none of its 2 structures and maps can be read; see above"):
        build_library(tmp_path)


def test_what_is_a_membrane_protein_is_said_by_the_manifest_or_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("mb_a", "syn_b", "mb_c", "d", "e"):
        structure(tmp_path / f"{name}.cif", [("LYS", "CA", "C", PROTEIN)])  # that no bilayer holds
    (tmp_path / "manifest.csv").write_text("id,name,kind\nmb_c,C,soluble\nd,D,membrane\n")
    library = build_library(tmp_path)
    kinds = {i: library.entries[i].kind for i in library.ids()}
    assert kinds == {"mb_a": "membrane", "syn_b": "membrane", "mb_c": "soluble", "d": "membrane", "e": "soluble"}
    told = [line for line in capsys.readouterr().err.splitlines() if "membrane protein" in line]
    assert len(told) == 2 and "mb_a.cif" in told[0] and "syn_b.cif" in told[1]
    (tmp_path / "manifest.csv").write_text("id,name,kind\ne,E,odd\n")
    with pytest.raises(UserError, match="e.cif: the manifest calls it 'odd'; give one of soluble, membrane"):
        build_library(tmp_path)
