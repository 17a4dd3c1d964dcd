"""One small good file or folder for every reader, and how it is read and used."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import planted_project as planted
import tifffile
import torch

from tomotwin_core.clustering.atlas import JUNK, Atlas, load_atlas
from tomotwin_core.clustering.candidates import Candidates
from tomotwin_core.clustering.kinds import signs
from tomotwin_core.clustering.output import read_members, write_clusters
from tomotwin_core.clustering.proposals import proposals_of
from tomotwin_core.clustering.scene import Scene, TomogramInfo, load_scene
from tomotwin_core.clustering.selection import read_selection
from tomotwin_core.coordinates import Coordinates, read_all_coordinates, write_coordinates
from tomotwin_core.embedding import embed_to_disk, open_field
from tomotwin_core.model import EmbeddingNetwork, Model, NetworkSettings, load_model, save_model
from tomotwin_core.picking import load_references
from tomotwin_core.picking.references import ReferenceSet, Space, Target
from tomotwin_core.project import read_project
from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.settings import read_experiment
from tomotwin_core.structures import load_density, load_library
from tomotwin_core.structures.density import Density
from tomotwin_core.structures.library import DensityLibrary
from tomotwin_core.toml_settings import read_settings, write_settings
from tomotwin_core.tomogram import open_tomogram, write_mrc
from tomotwin_core.training.settings import TrainingPlan
from tomotwin_core.training.state import read_state, write_state
from tomotwin_view.cluster_files import read_clusters
from tomotwin_view.session import Picks, PicksSession, Tomogram
from tomotwin_view.session_file import apply_session, write_session

SHAPE = (20, 22, 24)


@dataclass(frozen=True)
class Reader:
    """name: of the good file or folder.  read: reads it and looks at what came out.  mutate: makes a bad one of its bytes.
    errors: what else than UserError is an answer in a sentence (the windows' ValueError)."""

    name: str
    read: Callable[[Path], Any]
    mutate: Callable[[bytes, np.random.Generator], bytes] = mutations.bytes_mutated
    errors: tuple[type[BaseException], ...] = ()


PROJECTS = ("TS_1.tlt", "TS_2.defocus", "TS_3.mrc.mdoc", "TS_4.aln", "TS_5.xml", "TS_6.tomostar")


def _project(path: Path) -> None:
    for series in read_project(path).all():
        assert "tilts" in series.described()
        exposures = series.acquisition(Acquisition()).exposure_before_e_per_A2
        assert len(exposures) == len(series.kept(series.tilt_deg)) and np.isfinite(exposures).all()


def _volume(path: Path) -> None:
    source = open_tomogram(path, 10.0)
    source.check()
    assert np.isfinite(source.slab(0, source.shape[0])).all() and min(source.shape) > 1


def _field(path: Path) -> None:
    field = open_field(path)
    everything = field.embeddings(0, field.shape[0])
    assert np.isfinite(everything).all() and np.isfinite(field.particleness(0, field.shape[0])).all()
    assert "/" not in field.tomogram and field.spacing_A > 0 and field.voxel_size_A > 0 and min(field.tomogram_shape) > 0
    assert str(field.unusual) is not None and field.sample(50).shape[1] == everything.shape[3]


def _positions(path: Path) -> None:
    for table in read_all_coordinates(path, None, 10.0, SHAPE):
        assert np.isfinite(table.xyz).all() and "/" not in table.tomogram and 0 < table.voxel_size_A < 1e5
        assert table.rotation is None or np.allclose(np.linalg.det(table.rotation), 1, atol=0.1)


def _references(path: Path) -> None:
    found = load_references(path)
    embeddings = np.random.default_rng(0).normal(size=(5, len(found.space.centre))).astype(np.float32)
    if found.targets:
        assert np.isfinite(found.similarity(embeddings, background=True)).all()
    assert all(t.diameter_A > 0 and "/" not in t.name for t in found.targets)


def _model(path: Path) -> None:
    with torch.inference_mode():
        assert torch.isfinite(load_model(path).network(torch.ones(1, 1, 37, 37, 37))[0]).all()


def _atlas(path: Path) -> None:
    atlas = load_atlas(path)
    assert np.isfinite(atlas.vectors).all() and len(atlas.molecules[0]) == len(atlas.molecules[1]) >= 0


def _scene(folder: Path) -> None:
    scene, members = load_scene(folder), read_members(folder)
    assert np.isfinite(scene.vectors).all() and np.isfinite(scene.volume_um3).all()
    assert all("/" not in name for name in members)
    _positions(folder / "candidates.star")


def _library(folder: Path) -> None:
    library = load_library(folder / "l.npz")
    for entry in library.ids():
        assert np.isfinite(library.density(entry).mass_kDa) and library.density(entry).diameter_A > 0


def _molecule(path: Path) -> None:
    density = load_density(str(path), voxel_size_A=8.0 if path.suffix == ".mrc" else None)
    assert 0 < density.mass_kDa < 1e9 and 0 < density.diameter_A < 1e5


def _picks_session() -> PicksSession:
    table = np.random.default_rng(3).uniform(1, 18, (8, 3))
    half = np.full(8, 0.5)
    picks = Picks(np.zeros(8, int), np.arange(8) % 2, table, half, 100 * half, half, {})
    return PicksSession([Tomogram("TS_a", 10.0, SHAPE, lambda: np.zeros(SHAPE, np.float32))], ["one", "two"], picks)


def _session(path: Path) -> None:
    session = _picks_session()
    apply_session(str(path), session)
    assert not np.isnan(session.score_min).any()


READERS = (
    Reader("volume.mrc", _volume),
    Reader("volume.mrc.gz", _volume),
    Reader("volume.tif", _volume),
    Reader("tomo.zarr", _field, mutations.file_in_folder_mutated),
    Reader("model.safetensors", _model, mutations.safetensors_mutated),
    Reader("references.safetensors", _references, mutations.safetensors_mutated),
    Reader("atlas.safetensors", _atlas, mutations.safetensors_mutated),
    Reader("state", read_state, mutations.file_in_folder_mutated),
    Reader("clusters", _scene, mutations.file_in_folder_mutated),
    Reader("library", _library, mutations.file_in_folder_mutated),
    Reader("selection.json", read_selection, mutations.json_mutated),
    Reader("picks.json", _positions, mutations.json_mutated),
    Reader("training.toml", lambda p: read_settings(p, TrainingPlan()), mutations.text_mutated),
    Reader("experiment.toml", read_experiment, mutations.text_mutated),
    Reader("star.star", _positions, mutations.text_mutated),
    Reader("relion4.star", _positions, mutations.text_mutated),
    Reader("relion5.star", _positions, mutations.text_mutated),
    Reader("boxes.cbox", _positions, mutations.text_mutated),
    Reader("table.tbl", _positions, mutations.text_mutated),
    Reader("list.coords", _positions, mutations.text_mutated),
    Reader("model.mod", _positions),
    Reader("molecule.cif", _molecule, mutations.text_mutated),
    Reader("molecule.pdb", _molecule, mutations.text_mutated),
    Reader("map.mrc", _molecule),
    *(Reader(name, _project, mutations.text_mutated) for name in PROJECTS),
    Reader("relion-project", lambda p: _project(p / "tomograms.star"), mutations.file_in_folder_mutated),
    Reader("session.star", _session, mutations.text_mutated, (ValueError,)),
    Reader("clusters-in-the-window", lambda p: read_clusters(str(p), lambda *_: None), mutations.file_in_folder_mutated, (ValueError, OSError)),
)


def make_all(folder: Path) -> None:
    """All good files."""
    for make, name in zip((planted.tlt, planted.defocus, planted.mdoc, planted.aln, planted.warp_xml, planted.tomostar), PROJECTS, strict=True):
        make(folder, name.partition(".")[0])
    planted.relion(folder / "of-relion").parent.rename(folder / "relion-project")
    rng = np.random.default_rng(1)
    volume = rng.normal(100, 5, SHAPE).astype(np.float32)
    write_mrc(folder / "volume.mrc", volume, 10.0)
    (folder / "volume.mrc.gz").write_bytes(gzip.compress((folder / "volume.mrc").read_bytes()))
    tifffile.imwrite(folder / "volume.tif", volume)
    torch.manual_seed(0)
    network = EmbeddingNetwork(NetworkSettings((4, 5, 6, 8, 10), 12, own_statistics=0.0)).eval()
    save_model(folder / "model.safetensors", network, {})
    embed_to_disk(open_tomogram(folder / "volume.mrc"), Model(network, {}, folder), folder / "tomo.zarr", tile=8)
    table = Coordinates.from_arrays(
        rng.uniform(3, 17, (12, 3)), 10.0, "volume", SHAPE, label="ribo", score=rng.uniform(0.3, 1, 12), diameter_A=150.0
    )
    for name, format in (
        ("star.star", "star"), ("relion4.star", "relion4"), ("relion5.star", "relion5"), ("boxes.cbox", "cbox"), ("table.tbl", "dynamo"),
        ("list.coords", "coords"), ("picks.json", "copick"), ("model.mod", "imod"),
    ):  # fmt: skip
        write_coordinates(folder / name, table, format)
    axes = np.eye(32, dtype=np.float32)
    targets = tuple(Target(n, axes[i : i + 2], 120.0, 0.4, "test") for i, n in enumerate(("ribo", "apo")))
    ReferenceSet(targets, "hash", {}, Space.plain(), axes[5:8]).save(folder / "references.safetensors")
    label = np.repeat(np.arange(len(JUNK) + 3), 5)
    features = rng.normal(size=(len(label), 97)).astype(np.float32)
    Atlas("hash", 10.0, axes, np.eye(97, dtype=np.float32), 1.0, (*JUNK, "1qvr", "1eab", "1dzl"), features, label).save(
        folder / "atlas.safetensors"
    )
    write_state(
        folder / "state", {"network.a": torch.ones(3, 4)},
        {"step": 3, "particles": 5, "seconds": 1.0, "n_averaged": 2, "best": {"step": 1.0},
         "schedule": {"factor": 1.0, "best": None, "waited": 0, "looked": [1.0]}},
    )  # fmt: skip
    for name in ("clusters", "clusters-in-the-window"):
        _write_clusters(folder / name, rng)
    library = DensityLibrary({}, {})
    library.add("1abc", Density(_ball(9), 5.0), name="a ball", source="here", licence="CC0")
    (folder / "library").mkdir()
    library.save(folder / "library" / "l.npz")
    (folder / "selection.json").write_text(json.dumps({"version": 1, "clusters": [{"name": "r", "from": ["c"], "add": [1], "remove": [2]}]}))
    write_settings(folder / "training.toml", TrainingPlan())
    (folder / "experiment.toml").write_text("[species]\n1dzl = 5\n[sample]\nshape = [32, 40, 40]\nthickness_A = 200.0\n[random]\nseed = 3\n")
    _write_molecules(folder, rng)
    write_mrc(folder / "map.mrc", _ball(24), 8.0)
    write_session(str(folder / "session.star"), _picks_session(), {})


def _ball(edge: int) -> np.ndarray:
    distance = np.sqrt(((np.indices((edge,) * 3) - edge // 2) ** 2).sum(0))
    return np.asarray(np.clip(edge / 3 - distance, 0, 1) * 50, np.float32)


def _write_clusters(folder: Path, rng: np.random.Generator) -> None:
    n, size = 24, 32
    vectors = rng.normal(size=(n, size)).astype(np.float32)
    candidates = Candidates(
        ("volume",), np.zeros(n, int), rng.uniform(3, 17, (n, 3)), rng.uniform(30, 170, (n, 3)), vectors,
        rng.normal(size=(n, 97)).astype(np.float32), rng.normal(size=n).astype(np.float32), rng.uniform(3, 9, n).astype(np.float32),
        np.full(n, 120.0, np.float32),
    )  # fmt: skip
    frame = np.zeros((97, size), np.float32)
    frame[:size] = np.eye(size)
    scene = Scene(
        (TomogramInfo("volume", None, "x.zarr", 10.0, SHAPE),), candidates, np.arange(n), rng.normal(size=(n, 2)).astype(np.float32),
        Space.plain(), frame, np.zeros(size, np.float32), vectors, "hash", 1,
    )  # fmt: skip
    label = np.repeat([0, 1], n // 2)
    write_clusters(folder, scene, proposals_of(scene, label, None, signs(scene, None)), np.ones(n), pictures=False)


def _write_molecules(folder: Path, rng: np.random.Generator) -> None:
    columns = [
        "group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id", "label_entity_id",
        "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy", "B_iso_or_equiv", "auth_seq_id",
        "auth_asym_id", "pdbx_PDB_model_num",
    ]  # fmt: skip
    xyz = np.cumsum(rng.normal(0, 2.2, (40, 3)), axis=0).round(2)
    cif = ["data_test", "loop_", *(f"_atom_site.{c}" for c in columns)]
    pdb = []
    for i, (x, y, z) in enumerate(xyz, start=1):
        cif.append(f"ATOM {i} C CA . ALA A 1 {i} ? {x} {y} {z} 1 0 {i} A 1")
        pdb.append(f"ATOM  {i:5d}  CA  ALA A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C")
    (folder / "molecule.cif").write_text("\n".join(cif) + "\n")
    (folder / "molecule.pdb").write_text("\n".join(pdb) + "\nEND\n")
