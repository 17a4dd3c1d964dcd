"""Where a run's mini-tomograms come from: the live stream of simulated ones, or tomograms on disk.

Both give pairs: the loss is taken over two mini-tomograms together, so that every species is seen in two places or
under two acquisitions.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Literal, Protocol, TypeVar, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from tomotwin_core.coordinates import Coordinates, read_all_coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path, content_of
from tomotwin_core.model.network import WINDOW
from tomotwin_core.progress import progress
from tomotwin_core.side_by_side import end_with_parent
from tomotwin_core.structures.library import DensityLibrary
from tomotwin_core.tomogram import MODEL_VOXEL_SIZE_A, ModelTomogram, TomogramSource, open_tomogram, tomogram_name
from tomotwin_core.training.batches import PartlyListed
from tomotwin_core.training.settings import DataSettings, TrainingPlan
from tomotwin_core.training.stream import MiniTomogram, MiniTomogramStream

Pair = tuple[MiniTomogram, MiniTomogram]
# Positions of this name are of what is not wanted: negatives, no species.
NEGATIVES = ("background", "gold", "membrane", "vesicle", "actin", "microtubule", "filament", "carbon")


class PairSource(Protocol):
    """`species` names the labels 0, 1, 2 ... of the mini-tomograms."""

    species: list[str]

    def pairs(self, step: int, rank: int) -> Iterator[Pair]:
        """Endless pairs for the steps from `step` on, others for each rank."""


class LiveSource:
    """Pairs of the live stream, each handed out `reuse` times in random order. What a step sees depends on its number alone: a
    resumed run goes on with the pairs that it would have seen. Without workers the simulation runs on `device`, with workers on
    the CPU."""

    def __init__(self, library: DensityLibrary, plan: TrainingPlan, device: str = "cpu") -> None:
        self.plan, self.library = plan, library
        self.device = "cpu" if plan.training.workers else device
        self.species = library.ids("train")
        if len(self.species) < 4:
            raise UserError(f"the library has {len(self.species)} molecules to train on; at least 4 are needed")

    def pairs(self, step: int, rank: int) -> Iterator[Pair]:
        s = self.plan.training
        seeded = replace(self.plan.stream, seed=s.seed * 100003 + 10_000_019 * rank)

        def order() -> Iterator[int]:
            return in_use(s.reuse, s.buffer, np.random.default_rng((s.seed, 1, rank)))

        loader = DataLoader(
            MiniTomogramStream(self.library, self.species, seeded, self.device, max(s.workers, 1)),
            batch_size=None,
            sampler=_first_uses(islice(order(), step, None)),
            num_workers=s.workers,
            prefetch_factor=4 if s.workers else None,
            worker_init_fn=_as_a_worker,
        )
        return _handed_out(iter(loader), order(), step, s.reuse)


def in_use(reuse: int, buffer: int, rng: np.random.Generator) -> Iterator[int]:
    """The number of the pair that each step uses: every one `reuse` times, at random out of the last `buffer` of them."""
    waiting: list[tuple[int, int]] = []
    for number in count():
        waiting.append((number, reuse))
        if len(waiting) < min(buffer, 2):
            continue
        for _ in range(reuse if len(waiting) >= buffer else reuse - 1):
            pick = int(rng.integers(len(waiting)))
            chosen, left = waiting[pick]
            yield chosen
            waiting[pick] = (chosen, left - 1)
            if left == 1:
                waiting.pop(pick)
            if not waiting:
                break


def _first_uses(order: Iterator[int]) -> Iterator[int]:
    """Every number where it comes first."""
    seen: set[int] = set()
    for number in order:
        if number not in seen:
            seen.add(number)
            yield number


def _handed_out(fresh: Iterator[Pair], order: Iterator[int], step: int, reuse: int) -> Iterator[Pair]:
    """The pairs of the steps from `step` on, each kept from its first use to its last; `fresh` gives them as they are needed."""
    used = Counter(islice(order, step))
    kept: dict[int, Pair] = {}
    for number in order:
        if number not in kept:
            kept[number] = next(fresh)
        yield kept[number]
        used[number] += 1
        if used[number] == reuse:
            del kept[number], used[number]


T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in a thread while the one before it is used. The first is made in the caller's thread, where
    worker processes are to be started."""
    item = next(items)
    with ThreadPoolExecutor(1) as pool:
        while True:
            following = pool.submit(next, items)
            yield item
            item = following.result()


@dataclass(frozen=True)
class ListedTomogram:
    """A tomogram with what is known to lie in it."""

    source: TomogramSource
    listed: Coordinates
    complete: bool


class FolderSource:
    """Pairs of pieces cut out of tomograms on disk. A piece is chosen by a species, all species equally often, and one
    of its particles; both pieces of a pair by the same. The same seed and step give the same pair.

    The tomograms are brought to the model's voxels and normalised once, into `cache`.
    """

    def __init__(
        self, tomograms: list[ListedTomogram], cache: Path, seed: int, shape: tuple[int, int, int], contrast: str
    ) -> None:
        labels = {str(label) for t in tomograms for label in t.listed.label}
        self.species = sorted(labels - set(NEGATIVES))
        self.seed, self.shape = seed, shape
        self.volumes = [
            normalised_on_disk(t.source, contrast, cache)
            for t in progress(tomograms, desc="normalising", unit="tomograms")
        ]
        self.complete = [t.complete for t in tomograms]
        self.listed = [t.listed.to_voxel_size(MODEL_VOXEL_SIZE_A) for t in tomograms]
        self.labels = [np.array([self._index(str(n)) for n in t.label], int) for t in self.listed]
        # Tomogram and row of all particles of a species.
        self.places = [
            [(t, int(row)) for t, label in enumerate(self.labels) for row in np.flatnonzero(label == species)]
            for species in range(len(self.species))
        ]
        small = [t.source.path for t, v in zip(tomograms, self.volumes, strict=True) if min(v.shape[1:]) < WINDOW]
        if small:
            raise UserError(f"{small[0]}: narrower than the network's window of {WINDOW} voxels of 10 A; leave it out")
        if not self.species:
            raise UserError("the positions name no particle to train on; give positions with at least one")

    def _index(self, name: str) -> int:
        return self.species.index(name) if name in self.species else -1

    def pairs(self, step: int, rank: int) -> Iterator[Pair]:
        while True:
            rng = np.random.default_rng((self.seed, step, 3, rank))
            species = int(rng.integers(len(self.species)))
            yield self._piece(species, rng), self._piece(species, rng)
            step += 1

    def _piece(self, species: int, rng: np.random.Generator) -> MiniTomogram:
        places = self.places[species]
        tomogram, row = places[rng.integers(len(places))]
        volume, table = self.volumes[tomogram], self.listed[tomogram]
        size = np.minimum(self.shape, volume.shape)
        middle = table.xyz[row, ::-1] + rng.uniform(-0.35, 0.35, 3) * size
        low = np.clip(np.round(middle - size / 2), 0, np.array(volume.shape) - size).astype(int)
        high = low + size
        inside = ((table.xyz[:, ::-1] > low - 0.5) & (table.xyz[:, ::-1] < high - 0.5)).all(1)
        kind = MiniTomogram if self.complete[tomogram] else PartlyListed
        return kind(
            np.array(volume[low[0] : high[0], low[1] : high[1], low[2] : high[2]], np.float32),
            table.xyz[inside] - low[::-1],
            self.labels[tomogram][inside],
            table.diameter_A[inside].astype(float),
        )


class MixedSource:
    """One source for a share of the steps, another for the rest; labels of the second follow those of the first."""

    def __init__(self, first: PairSource, second: PairSource, share: float, seed: int) -> None:
        self.first, self.second, self.share, self.seed = first, second, share, seed
        self.species = list(dict.fromkeys([*first.species, *second.species]))
        index = {name: i for i, name in enumerate(self.species)}
        self._second_labels = np.array([index[name] for name in second.species])

    def pairs(self, step: int, rank: int) -> Iterator[Pair]:
        before = sum(map(self._is_of_the_first, range(step)))
        first, second = self.first.pairs(before, rank), self.second.pairs(step - before, rank)
        while True:
            if self._is_of_the_first(step):
                yield next(first)
            else:
                a, b = next(second)
                yield self._relabelled(a), self._relabelled(b)
            step += 1

    def _is_of_the_first(self, step: int) -> bool:
        return bool(np.random.default_rng((self.seed, step, 4)).random() < self.share)

    def _relabelled(self, piece: MiniTomogram) -> MiniTomogram:
        known = piece.label >= 0
        return replace(piece, label=np.where(known, self._second_labels[np.where(known, piece.label, 0)], -1))


def make_source(plan: TrainingPlan, library: DensityLibrary, cache: Path, device: str = "cpu") -> PairSource:
    """The source that the settings ask for."""
    if not plan.data.given:
        return LiveSource(library, plan, device)
    on_disk = FolderSource(
        listed_tomograms(plan.data), cache, plan.training.seed, plan.stream.shape, plan.data.contrast
    )
    if not plan.data.live_share:
        if len(on_disk.species) < 2 and not all(on_disk.complete):
            raise UserError(
                f"the positions are of one target only ({on_disk.species[0]}) and not all of its particles are listed: "
                "nothing tells it from others; give positions of a second target, --all-listed, or a --live-share of "
                "simulated tomograms"
            )
        return on_disk
    return MixedSource(LiveSource(library, plan, device), on_disk, plan.data.live_share, plan.training.seed)


def listed_tomograms(data: DataSettings) -> list[ListedTomogram]:
    """The tomograms that the settings name, with their positions; UserError where they do not go together."""
    found = []
    for folder in map(Path, data.folders):
        truths = sorted(folder.glob("*_truth.star"))
        if not truths:
            raise UserError(f"{folder}: holds no NAME_truth.star; give a folder that `tomotwin simulate` wrote")
        for truth in truths:
            source = open_tomogram(truth.with_name(truth.name.removesuffix("_truth.star") + ".mrc"))
            found += [ListedTomogram(source, t, True) for t in _tables(truth, source, data)]
    sources = {tomogram_name(t): open_tomogram(t, data.voxel_size_A) for t in data.tomograms}
    for file in data.positions:
        only = next(iter(sources.values())) if len(sources) == 1 else None
        for table in _tables(Path(file), only, data):
            chosen = sources.get(table.tomogram, only)
            if chosen is None:
                raise UserError(
                    f"{file}: has positions in {table.tomogram}, which is none of the tomograms given ({', '.join(sources)})"
                )
            found.append(ListedTomogram(chosen, table, data.all_listed))
    return _joined(found)


def _tables(file: Path, source: TomogramSource | None, data: DataSettings) -> list[Coordinates]:
    known = (source.name, source.voxel_size_A, source.shape) if source else (None, data.voxel_size_A, None)
    tables = read_all_coordinates(file, *known)
    return [_complete(file, table, data) for table in tables if len(table)]


def _complete(file: Path, table: Coordinates, data: DataSettings) -> Coordinates:
    """The table with a name and a diameter for every particle."""
    diameter = np.where(np.isfinite(table.diameter_A), table.diameter_A, data.diameter_A or np.nan)
    furniture = np.isin(table.label, NEGATIVES)
    if not np.isfinite(diameter[~furniture]).all():
        raise UserError(f"{file}: the positions have no diameter; give it with --diameter")
    label = np.where(table.label == "", file.name.split(".")[0].removesuffix("_truth"), table.label)
    return replace(table, label=label, diameter_A=np.where(np.isfinite(diameter), diameter, 100.0).astype(np.float32))


def _joined(found: list[ListedTomogram]) -> list[ListedTomogram]:
    """One entry for each tomogram, whatever files its positions come from."""
    by_path: dict[Path, list[ListedTomogram]] = {}
    for entry in found:
        by_path.setdefault(entry.source.path.resolve(), []).append(entry)
    return [
        ListedTomogram(
            same[0].source,
            Coordinates.concatenate([replace(e.listed, tomogram=same[0].source.name) for e in same]),
            all(e.complete for e in same),
        )
        for same in by_path.values()
    ]


def normalised_on_disk(source: TomogramSource, contrast: str, cache: Path) -> np.ndarray:
    """The tomogram as the network sees it, mapped from a file in the cache, float16 [z, y, x]."""
    stamp = f"{source.name}-{content_of(source.path)[:16]}-{source.voxel_size_A:.3f}-{contrast}"
    file = cache / f"{stamp}.npy"
    if not file.is_file():
        source.check()
        volume = ModelTomogram(source, contrast=cast(Literal["dark", "bright"], contrast))
        with atomic_path(file) as temporary:
            out = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float16, shape=volume.shape)
            for z in range(0, volume.shape[0], 32):
                z1 = min(z + 32, volume.shape[0])
                out[z:z1] = volume.slab(z, z1)
            out.flush()
    return np.load(file, mmap_mode="r")


def _as_a_worker(_: int) -> None:
    """Ctrl-C reaches the whole process group; only the trainer answers to it, by saving. A worker ends with its trainer, and takes
    one core."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
