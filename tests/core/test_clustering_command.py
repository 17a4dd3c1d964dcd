"""`tomotwin cluster` on planted fields: its files, selections, another look, and what it says where there is nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import starfile
from planted import FieldMaker
from planted_species import SIZE, apart, species_field
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from tomotwin_core.cli.main import main
from tomotwin_core.clustering.scene import load_scene
from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.picking import load_references, locate
from tomotwin_core.tomogram import write_mrc

SHAPE = (28, 44, 44)
FAST = ("--no-library", "--fast-map", "--threads", "1")
COUNTS = (24, 16)


def run(*arguments: object) -> int:
    return main(["cluster", *map(str, arguments)])


class Planted:
    """Two species in one or two tomograms."""

    def __init__(self, make_field: FieldMaker, names: tuple[str, ...] = ("tomo",)) -> None:
        self.species = np.repeat([0, 1], COUNTS)
        self.places = {n: apart(SHAPE, sum(COUNTS), 7.0, seed=i) for i, n in enumerate(names)}
        self.fields = {
            n: make_field(species_field(SHAPE, p, self.species, seed=i), voxel_size_A=12.5, name=n)
            for i, (n, p) in enumerate(self.places.items())
        }

    @property
    def paths(self) -> list[Path]:
        return [f.path for f in self.fields.values()]

    def shares(self, folder: Path, name: str, kind: int) -> tuple[float, float]:
        """Purity and completeness of a cluster as a species, by position."""
        rows = starfile.read(folder / "candidates.star", always_dict=True)["particles"]
        own = rows[rows["tomotwinCluster"] == name]
        hits = 0
        for tomogram, places in self.places.items():
            there = own[own["rlnTomoName"] == tomogram]
            if len(there):
                xyz = there[[f"rlnCoordinate{a}" for a in "XYZ"]].to_numpy() * 12.5 / 20.0
                hits += int((cKDTree(xyz).query(places[self.species == kind][:, ::-1])[0] < 1.0).sum())
        return hits / max(len(own), 1), hits / (COUNTS[kind] * len(self.places))


def clusters_in(folder: Path) -> dict:
    return json.loads((folder / "clusters.json").read_text())


@pytest.fixture
def planted(make_field: FieldMaker) -> Planted:
    return Planted(make_field)


@pytest.fixture
def found(planted: Planted, tmp_path: Path) -> Path:
    assert run(*planted.paths, "--out", tmp_path / "found", "--no-pictures", *FAST) == 0
    return tmp_path / "found"


def test_planted_species_are_proposed_with_their_members_and_become_references(planted: Planted, found: Path) -> None:
    content = clusters_in(found)
    species = [c for c in content["clusters"] if c["kind"] == "species"]
    assert [c["name"] for c in species] == ["cluster_01", "cluster_02"]
    for index, cluster in enumerate(species):
        purity, completeness = planted.shares(found, cluster["name"], index)
        assert purity > 0.9 and completeness > 0.9
        assert cluster["count"] == len(cluster["members"]) == cluster["count_by_tomogram"]["tomo"]
        assert set(cluster["medoids"]) <= set(cluster["members"])
    assert "2 species proposed" in content["verdict"]
    rows = starfile.read(found / "candidates.star", always_dict=True)["particles"]
    assert list(rows["tomotwinId"]) == list(range(len(rows)))
    assert ((rows["tomotwinProbability"] > 0) == (rows["tomotwinCluster"] != "none")).all()
    # As references the clusters find their copies again.
    references = load_references(found / "references.safetensors")
    assert references.names == ["cluster_01", "cluster_02"]
    field: EmbeddingField = planted.fields["tomo"]
    peaks = locate(field, references)
    for index, target in enumerate(references.targets):
        picks = peaks.select((peaks.label == target.name) & (peaks.score >= target.threshold))
        own = planted.places["tomo"][planted.species == index][:, ::-1] * 20.0 / 12.5
        assert (cKDTree(picks.xyz).query(own)[0] < 1.6).mean() > 0.9 and len(picks) < 1.2 * COUNTS[index]


def test_a_second_call_with_the_same_seed_writes_the_same(planted: Planted, found: Path, tmp_path: Path) -> None:
    assert run(*planted.paths, "--out", tmp_path / "again", "--no-pictures", *FAST) == 0
    first, second = (clusters_in(f)["clusters"] for f in (found, tmp_path / "again"))
    assert first == second


def test_tomograms_are_clustered_together_and_counted_apart(make_field: FieldMaker, tmp_path: Path) -> None:
    both = Planted(make_field, ("one", "two"))
    assert run(*both.paths, "--out", tmp_path / "both", "--no-pictures", *FAST) == 0
    species = [c for c in clusters_in(tmp_path / "both")["clusters"] if c["kind"] == "species"]
    assert len(species) == 2
    for index, cluster in enumerate(species):
        assert min(both.shares(tmp_path / "both", cluster["name"], index)) > 0.9
        assert set(cluster["count_by_tomogram"]) == {"one", "two"}


def test_a_selection_merges_names_adds_and_removes(found: Path, tmp_path: Path) -> None:
    first, second = clusters_in(found)["clusters"][:2]
    added = next(
        int(i)
        for i, c in starfile.read(found / "candidates.star", always_dict=True)["particles"][
            ["tomotwinId", "tomotwinCluster"]
        ].to_numpy()
        if c == "none"
    )
    entries = [
        {"name": "mine", "from": [first["name"], second["name"]], "add": [added], "remove": first["members"][:3]},
        {"name": "lasso", "from": [], "add": first["members"][:3], "remove": []},
    ]
    selection = tmp_path / "selection.json"
    selection.write_text(json.dumps({"version": 1, "clusters": entries}))
    assert run(found, "--selection", selection, "--out", tmp_path / "chosen", "--no-pictures", *FAST) == 0
    chosen = {c["name"]: c for c in clusters_in(tmp_path / "chosen")["clusters"]}
    assert set(chosen["mine"]["members"]) == {*first["members"][3:], *second["members"], added}
    assert set(chosen["lasso"]["members"]) == set(first["members"][:3])
    assert load_references(tmp_path / "chosen" / "references.safetensors").names == ["mine", "lasso"]


def test_a_selection_can_be_clustered_again_and_so_can_what_was_left_over(found: Path, tmp_path: Path) -> None:
    first, second = clusters_in(found)["clusters"][:2]
    selection = tmp_path / "selection.json"
    entry = {"name": "both", "from": [first["name"], second["name"]], "add": [], "remove": []}
    selection.write_text(json.dumps({"version": 1, "clusters": [entry]}))
    assert run(found, "--recompute", "--selection", selection, "--out", tmp_path / "again", "--no-pictures", *FAST) == 0
    again = clusters_in(tmp_path / "again")["clusters"]
    assert [set(c["members"]) <= {*first["members"], *second["members"]} for c in again] == [True] * len(again)
    assert len([c for c in again if c["kind"] == "species"]) == 2, "the two part again"
    assert run(found, "--leftover", "--out", tmp_path / "rest", "--no-pictures", *FAST) == 0
    taken = {i for c in clusters_in(found)["clusters"] for i in c["members"]}
    rows = starfile.read(tmp_path / "rest" / "candidates.star", always_dict=True)["particles"]
    assert len(rows) and not taken & set(rows["tomotwinId"])


def test_candidates_stay_in_the_frame_that_they_were_clustered_in(found: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    scene = load_scene(found)
    wide = replace(scene, frame=np.eye(scene.frame.shape[0], dtype=np.float32), origin=np.zeros(scene.frame.shape[0], np.float32))
    wide.save(found)  # as it is with the library
    assert run(found, "--leftover", *FAST, "--out", tmp_path / "rare") == 2
    assert "was clustered with the library: leave out --no-library here too" in capsys.readouterr().err
    assert not (tmp_path / "rare").exists()


def test_clustering_anew_leaves_nothing_of_before_in_the_folder(planted: Planted, found: Path) -> None:
    (found / "averages").mkdir()
    (found / "averages" / "cluster_99.mrc").write_text("of another clustering")
    (found / "mine.txt").write_text("stays")
    before = (found / "clusters.json").read_text()
    assert run(*planted.paths, *FAST, "--fewest", "99999", "--out", found) == 0
    assert not (found / "averages").exists() and (found / "mine.txt").exists()
    assert (found / "clusters.json").read_text() != before and not list(found.glob(".*"))
    assert run(*planted.paths, *FAST, "--salience", "-1", "--out", found) == 2


def test_averages_and_pictures_are_made_where_the_tomogram_is_given(planted: Planted, tmp_path: Path) -> None:
    # Protein is dark; the second species is a ball twice as wide.
    z, y, x = planted.fields["tomo"].tomogram_shape
    volume = np.random.default_rng(0).normal(scale=0.05, size=(z, y, x))
    for place, kind in zip(planted.places["tomo"], planted.species, strict=True):
        spot = np.zeros_like(volume)
        spot[tuple(np.round(place * 20.0 / 12.5).astype(int))] = 1.0
        radius = 2.0 * (kind + 1)
        corner = [slice(max(int(c * 1.6) - 14, 0), int(c * 1.6) + 15) for c in place]
        volume[tuple(corner)] -= gaussian_filter(spot[tuple(corner)], radius) * radius**3 * 16
    write_mrc(tmp_path / "tomo.mrc", volume.astype(np.float32), 12.5)
    out = tmp_path / "pictured"
    assert run(*planted.paths, "--out", out, "--tomograms", tmp_path / "tomo.mrc", *FAST) == 0
    from tomotwin_core.tomogram import open_tomogram

    widths = []
    for cluster in clusters_in(out)["clusters"][:2]:
        average = open_tomogram(out / cluster["average"])
        middle = average.slab(0, average.shape[0])
        half = middle.shape[0] // 2
        profile = middle[half, half]
        assert profile.argmax() == pytest.approx(half, abs=1), "the particle is in the middle, bright"
        widths.append((profile > profile.max() / 2).sum() * average.voxel_size_A)
        assert (out / cluster["gallery"]).stat().st_size > 1000
    assert widths[1] > 1.4 * widths[0]
    assert (out / "overview.png").is_file() and clusters_in(out)["tomograms"]["tomo"]["file"].endswith("tomo.mrc")


@pytest.mark.parametrize("what", ["nothing", "noise"])
def test_without_species_none_is_invented_and_the_verdict_says_so(make_field: FieldMaker, tmp_path: Path, what: str) -> None:
    rng = np.random.default_rng(2)
    values = np.zeros((20, 30, 30, SIZE)) if what == "nothing" else gaussian_filter(rng.normal(size=(20, 30, 30, SIZE)), (1, 1, 1, 0))
    values[..., 0] += 1.0
    field = make_field((values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32))
    assert run(field.path, "--out", tmp_path / "out", "--no-pictures", *FAST) == 0
    content = clusters_in(tmp_path / "out")
    assert not [c for c in content["clusters"] if c["kind"] == "species"]
    assert "empty" in content["verdict"] if what == "nothing" else "no species" in content["verdict"].lower()
    assert load_references(tmp_path / "out" / "references.safetensors").names == []


def test_what_cannot_be_done_is_said_in_one_sentence(found: Path, planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def refused(*arguments: object) -> str:
        capsys.readouterr()
        assert run(*arguments, "--out", tmp_path / "out", "--no-pictures", *FAST) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "Traceback" not in said
        return said

    def selection(*clusters: dict) -> Path:
        path = tmp_path / "s.json"
        path.write_text(json.dumps({"version": 1, "clusters": list(clusters)}))
        return path

    assert "cluster_99" in refused(found, "--selection", selection({"name": "a", "from": ["cluster_99"]}))
    assert "99999" in refused(found, "--selection", selection({"name": "a", "add": [99999]}))
    assert "no member" in refused(found, "--selection", selection({"name": "a"}))
    assert "two clusters" in refused(found, "--selection", selection({"name": "a", "add": [1]}, {"name": "a", "add": [2]}))
    (tmp_path / "bad.json").write_text("{}")
    assert "not a selection" in refused(found, "--selection", tmp_path / "bad.json")
    assert "--leftover" in refused(found)
    assert "earlier" in refused(*planted.paths, "--leftover")
    assert "none of the embedded" in refused(*planted.paths, "--tomograms", tmp_path / "other.mrc")
    assert "no such embedding" in refused(tmp_path / "nothing.zarr")
