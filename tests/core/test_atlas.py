"""The atlas: what places of simulated tomograms are, for which tomograms it speaks, and that it is kept."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from planted_atlas import atlas_with

from tomotwin_core.clustering.atlas import JUNK, Atlas, load_atlas
from tomotwin_core.clustering.atlas_making import (
    AtlasSettings,
    _labelled,
    _lumens_filled,
    atlas_examples,
    best_breadth,
    detail_of,
    kept_atlas,
)
from tomotwin_core.coordinates import Coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.model import load_model
from tomotwin_core.simulation.experiment import legend
from tomotwin_core.structures.library import load_library


def test_places_of_a_simulated_tomogram_are_the_particle_a_part_of_it_or_ice() -> None:
    z, y, x = np.mgrid[:60, :60, :60]
    labels = ((z - 30) ** 2 + (y - 30) ** 2 + (x - 30) ** 2 < 12**2).astype(np.int16)
    truth = Coordinates.from_arrays([[30.0, 30, 30]], 10.0, "t", labels.shape, label="1dzl", diameter_A=240.0)
    places = np.array([[30, 30, 30], [30, 30, 34], [30, 38, 30], [2, 2, 2]], float)
    names = (*JUNK, "1dzl")
    found = _labelled(places, truth, labels, names, legend(names[len(JUNK) :]))
    assert [names[i] if i >= 0 else "neither" for i in found] == ["1dzl", "neither", "part", "ice"]


def test_the_lumen_of_a_microtubule_is_the_microtubule_and_ice_around_it_is_ice() -> None:
    numbers = legend(["1dzl"])
    z, _, x = np.mgrid[:60, :40, :60]
    radius = np.hypot(z - 30, x - 30)
    labels = np.where((radius > 9) & (radius < 13), numbers["microtubule"], 0).astype(np.int16)
    filled = _lumens_filled(labels, numbers)
    assert (filled[radius < 13] == numbers["microtubule"]).all() and (filled[radius >= 13] == 0).all()
    truth = Coordinates.from_arrays(np.zeros((0, 3)), 10.0, "t", labels.shape)
    places = np.array([[30, 20, 30], [30, 20, 20], [30, 20, 54]], float)
    found = _labelled(places, truth, filled, (*JUNK, "1dzl"), numbers)
    assert [JUNK[i] for i in found] == ["filament", "filament", "ice"]


def test_tomograms_have_the_atlas_of_their_detail() -> None:
    assert detail_of([6.0]) == detail_of([8.0, 10.0]) == detail_of([12.0]) == 10.0
    assert detail_of([13.3]) == pytest.approx(13.3, rel=0.06) and detail_of([31.36]) == pytest.approx(31.36, rel=0.06)
    assert detail_of([10.0, 10.0, 31.36]) == 10.0  # that of most of them
    assert detail_of([31.36]) == detail_of([31.4])


def test_a_coarse_atlas_has_the_molecules_that_are_large_enough_to_be_seen() -> None:
    library, model = load_library(), load_model("released")
    names = (*JUNK, *(i for i in library.ids() if library.entries[i].split in ("train", "heldout")))
    shape = (40, 96, 96)
    fine, coarse = (
        atlas_examples(0, model, AtlasSettings(shape, 1, 0, 0, 0, 1, 1, detail_A=detail)) for detail in (10.0, 38.0)
    )
    for _, features, label in (fine, coarse):
        assert features.shape == (len(label), 97) and {JUNK.index("filament"), JUNK.index("ice")} <= set(label.tolist())
    sizes = [[library.entries[names[k]].diameter_A for k in label if k >= len(JUNK)] for _, _, label in (fine, coarse)]
    assert len(sizes[1]) >= 5 and min(sizes[1]) >= 4.5 * 38.0 > min(sizes[0])


def test_an_atlas_is_kept_and_says_how_wide_groups_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomotwin_core.clustering.atlas_making._DRAWS", 1)
    middles = np.random.default_rng(5).normal(scale=3.0, size=(10, 96))
    atlas = atlas_with(middles)
    atlas.save(tmp_path / "atlas.safetensors")
    back = load_atlas(tmp_path / "atlas.safetensors")
    np.testing.assert_allclose(back.vectors, atlas.vectors, atol=5e-3)
    assert back.names == atlas.names and back.breadth == atlas.breadth
    assert back.scatter.widths.mean() == pytest.approx(0.09, rel=0.1), "the variance that was planted"
    # Groups that scatter as is known need not be taken wider.
    assert best_breadth(atlas, np.arange(4, 10), np.random.default_rng(0)) <= 2.0
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not an atlas"):
        load_atlas(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="another model"):
        kept_atlas("0123456789abcdef", "released")
    # One of an earlier version in the cache is made anew, and kept.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = SimpleNamespace(hash="old")

    def made(model: object, settings: AtlasSettings, device: str) -> Atlas:
        return replace(atlas, detail_A=settings.detail_A)

    monkeypatch.setattr("tomotwin_core.clustering.atlas_making.load_model", lambda file: model)
    monkeypatch.setattr("tomotwin_core.clustering.atlas_making.make_atlas", made)
    kept = tmp_path / "tomotwin" / "atlas_old.safetensors"
    kept.parent.mkdir()
    kept.write_bytes(b"of an earlier version")
    assert kept_atlas("old", "mine.safetensors").names == atlas.names == load_atlas(kept).names
    # Coarser tomograms have one of their own.
    coarse = kept_atlas("old", "mine.safetensors", 20.0)
    assert coarse.detail_A == 20.0 and load_atlas(kept).detail_A == 10.0
    assert load_atlas(kept.with_name("atlas_old_20A.safetensors")).detail_A == 20.0
    monkeypatch.setattr("tomotwin_core.clustering.atlas_making.make_atlas", None)
    assert kept_atlas("old", "mine.safetensors").detail_A == 10.0
    assert kept_atlas("old", "mine.safetensors", 20.0).detail_A == 20.0
