"""Invented molecules: new shapes of real material, and never in one batch with what they are made of."""

from collections import defaultdict
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from scipy import ndimage

from tomotwin_core.structures.density import Density, density_from_points
from tomotwin_core.structures.library import DensityLibrary
from tomotwin_core.training import inventing
from tomotwin_core.training import stream as stream_module
from tomotwin_core.training.inventing import HEAVIEST_KDA, LARGEST_A, LIGHTEST_KDA, Invented, invent
from tomotwin_core.training.stream import INVENTED, MiniTomogramStream, StreamSettings, label_in_world

VOXEL_A = 5.0


@pytest.fixture(scope="module")
def library() -> DensityLibrary:
    """Twelve ellipsoids of 60 to 610 kDa, no two alike."""
    made, rng = DensityLibrary({}, {}), np.random.default_rng(0)
    for i in range(12):
        points = rng.uniform(-1, 1, (4000, 3))
        points = points[np.linalg.norm(points, axis=1) < 1] * (18 + 3 * i, 40 - 2 * i, 22)
        density = density_from_points(points, np.full(len(points), (60e3 + 50e3 * i) / len(points)), VOXEL_A)
        made.add(f"m{i}", density, name=f"molecule {i}", source="a test", licence="none")
    return made


def invented(library: DensityLibrary, count: int) -> list[Invented]:
    rng = np.random.default_rng(1)
    made = [invent(f"new {i}", library.ids(), library.density, rng) for i in range(count)]
    assert None not in made
    return [m for m in made if m]


def test_what_is_invented_is_centred_and_of_a_size_that_can_be_used(library: DensityLibrary) -> None:
    for made in invented(library, 30):
        values = made.density.values
        assert values.shape[0] == values.shape[1] == values.shape[2] and values.shape[0] % 2 == 1
        middle = (np.array(values.shape) - 1) / 2
        assert np.abs(np.array(ndimage.center_of_mass(values)) - middle).max() < 0.1
        assert LIGHTEST_KDA <= made.density.mass_kDa <= HEAVIEST_KDA and made.density.diameter_A <= LARGEST_A
        assert set(made.parents) <= set(library.ids()) and 1 <= len(made.parents) <= 2


def test_stretching_keeps_the_density_per_volume_so_that_the_mass_goes_with_the_volume(library: DensityLibrary) -> None:
    density = library.density("m9")
    dense = float(np.median(density.values[density.values > 0.5 * density.values.max()])) / VOXEL_A**3
    masses, rng = [], np.random.default_rng(2)
    for _ in range(8):
        values = inventing._on_grid(density, rng)
        now = float(np.median(values[values > 0.5 * values.max()])) / inventing._VOXEL_A**3
        assert now == pytest.approx(dense, rel=0.1)
        body = (values > 0.5 * values.max()).sum() * inventing._VOXEL_A**3
        masses.append(values.sum() / body)
    assert np.ptp(masses) < 0.15 * np.mean(masses)


def test_a_piece_is_a_third_to_two_thirds_of_its_molecule(library: DensityLibrary) -> None:
    rng = np.random.default_rng(3)
    values = inventing._on_grid(library.density("m5"), rng)
    shares = [float(inventing._piece(values, rng).sum() / values.sum()) for _ in range(12)]
    assert min(shares) > 0.25 and max(shares) < 0.75 and np.ptp(shares) > 0.1


def test_what_a_cut_has_parted_from_a_piece_is_left_out() -> None:
    values = np.zeros((20, 20, 20), np.float32)
    values[2:9, 4:12, 4:12] = 1.0
    values[15:18, 4:8, 4:8] = 1.5
    kept = inventing._largest_body(ndimage.gaussian_filter(values, 0.8))
    assert kept[:11].sum() == pytest.approx(values[:11].sum(), rel=0.02) and kept[14:].sum() == 0.0


def test_two_that_grow_together_touch_and_keep_most_of_both(library: DensityLibrary) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        first, second = (inventing._on_grid(library.density(i), rng) for i in ("m3", "m7"))
        joined = inventing._grown_together(first, second, rng)
        labels, _ = ndimage.label(joined > 0.2 * joined.max())
        sizes = np.bincount(labels.ravel())[1:]
        assert sizes.max() > 0.98 * sizes.sum(), "one body"
        assert 0.8 * (first.sum() + second.sum()) < joined.sum() <= 1.001 * (first.sum() + second.sum())


def test_half_of_them_are_mirrored() -> None:
    corner = np.zeros((21, 21, 21), np.float32)
    corner[10:18, 8:12, 8:12] = 1.0
    corner[8:12, 10:15, 8:12] = 1.0
    corner[8:12, 8:12, 10:13] = 1.0

    def handedness(values: np.ndarray) -> float:
        where = np.argwhere(values > 0.3 * values.max()) - np.array(ndimage.center_of_mass(values))
        third = np.einsum("ni,nj,nk->ijk", *(where,) * 3) / len(where)
        cov = np.cov(where.T)
        _, axes = np.linalg.eigh(cov)
        skew = np.einsum("ijk,ia,ja,ka->a", third, axes, axes, axes)
        return float(np.sign(np.prod(skew) * np.linalg.det(axes)))

    rng = np.random.default_rng(0)
    hands = [handedness(inventing._on_grid(Density(corner, 6.0, 3.0), rng)) for _ in range(40)]
    assert 8 <= hands.count(1.0) <= 32 and hands.count(1.0) + hands.count(-1.0) == 40


def test_a_pair_never_has_a_molecule_beside_what_was_made_of_it(
    library: DensityLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents: dict[str, tuple[str, ...]] = {}

    def remembered(*arguments):
        made = invent(*arguments)
        parents[made.name] = made.parents
        return made

    casts = []
    monkeypatch.setattr(stream_module, "invent", remembered)
    monkeypatch.setattr(MiniTomogramStream, "_mini", lambda self, cast, molecules, rng: casts.append(dict(cast)))
    library = replace(library, entries={**library.entries, "m0": replace(library.entries["m0"], lookalikes=("m1",))})
    settings = StreamSettings(species=6, invented=0.5, seed=4)
    assert len(list(islice(MiniTomogramStream(library, library.ids(), settings), 40))) == 40
    served: dict[str, int] = defaultdict(int)
    for cast in casts[::2]:
        new = [n for n in cast if n in parents]
        real = set(cast) - set(new)
        assert len(real) == 3 and len(new) >= 1
        made_of = [p for n in new for p in parents[n]]
        assert len(made_of) == len(set(made_of)) and not real & set(made_of)
        assert not ("m0" in real and "m1" in made_of)
        assert all((cast[n].label >= INVENTED) == (n in parents) for n in cast)
        assert len({m.label for m in cast.values()}) == len(cast)
        for name in new:
            served[name] += 1
    assert np.mean([sum(n in parents for n in c) for c in casts]) > 2
    assert max(served.values()) <= 6 and len(served) > 20, "new ones all the time"


def test_without_invention_all_species_are_of_the_library(library: DensityLibrary) -> None:
    stream = MiniTomogramStream(library, library.ids(), StreamSettings(species=6, invented=0.0))
    assert {len(stream.draw_species(np.random.default_rng(i))) for i in range(5)} == {6}


def test_invented_molecules_of_two_processes_are_different_ones() -> None:
    """Each process numbers its own from the same label on; species, background and furniture mean the same to all."""
    label = torch.tensor([-1, 0, 7, INVENTED, INVENTED + 39])
    first, second = (label_in_world(label, rank) for rank in (0, 1))
    assert torch.equal(first, label) and torch.equal(second[:3], label[:3])
    assert not set(first[3:].tolist()) & {int(n) for n in range(int(second[3]), int(second[4]) + 1)}
    assert float(label_in_world(label, 8)[-1].float()) == int(label_in_world(label, 8)[-1]), "travels as float32"
