"""A template out of the tomograms themselves, for targets that are known by example positions alone.

    first     the examples, and of the similarity's peaks the best few, are matched with library molecules of about the diameter;
              aligned to each of the few molecules that fit them best, averaged and aligned to their average, some rounds over, they
              give a molecule of their own. The one that its copies fit best is taken; of the library's molecules
              nothing remains but where it began
    then      each target's candidates, the peaks of its similarity, are matched with the average of half of its copies, those
              that are in that half with the other half's: what is in an average fits it too well. All targets compete on that
              and the similarity, and the best are the next copies. Three times
    halves    of the last copies, aligned apart from each other, tell to which detail the template is right

A template that its halves do not bear out is not used: such a target is found by similarity alone, as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.evaluation.resolution import shell_correlation
from tomotwin_core.progress import progress
from tomotwin_core.side_by_side import side_by_side
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.structures.density import Density
from tomotwin_core.structures.library import load_library
from tomotwin_core.tomogram import TomogramSource
from tomotwin_core.verification.averages import Copies, as_molecule, average, mass_of_Da
from tomotwin_core.verification.competition import Matched, kept_in_competition, scores
from tomotwin_core.verification.matcher import Matcher, Prepared
from tomotwin_core.verification.places import spread_places
from tomotwin_core.verification.verifying import PLACES_OF_CHANCE, VerificationSettings, matching_size

# Library molecules within so much of the diameter (natural logarithm), so many evenly over their masses, are tried at this angular
# step; alignments begin from the best few of them.
_ALIKE, _TRIED, _FIRST_STEP_DEG, _STARTS = 0.25, 24, 30.0, 3
_ALIGNMENTS, _OF_HALVES = 3, 2
# Peaks of similarity beside the examples in the first alignment; the share of all that fits worst is left out.
_FIRST_PEAKS, _MISFITS = 10, 0.3
# Candidates of each target, and how many of the best are averaged.
_CANDIDATES, _MANY, _ROUNDS = 100, 15, 3
# How far along each axis, voxels, a copy's centre may move; a peak nearer to an example (share of the diameter) is that example.
_REACH, _SAME = 1, 0.4
# Fewer copies have no halves; these begin from nothing finer, and must agree to so much, A (halves of noise reach 89 to 98).
_FEWEST, _COARSE_A, _ENOUGH_A, _AGREE = 8, 100.0, 85.0, 0.5
# Compared as picks are verified.
_SETTINGS = VerificationSettings()
# Tomograms lie so far from each other, A.
_FAR_A = 1e7

_Result = TypeVar("_Result")


class Place(NamedTuple):
    """A tomogram with examples in it: its protein's contrast; the peaks of similarity of all targets, competing for places and
    not; the examples, by label; the similarity to a target, by name, at places (n, 3) x, y, z in its voxels."""

    source: TomogramSource
    contrast: Literal["dark", "bright"]
    best: Coordinates
    peaks: Coordinates
    examples: Coordinates
    similarity: Callable[[str, NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Template:
    """density; decoy : an average of as many places that are less similar, made alike: what it fits, whatever is not the target fits;
    copies : how many are averaged in either; resolution_A : to which the density's halves agree (0.5), infinity where they do not, or
    are too few to have any."""

    density: Density
    decoy: Density
    copies: int
    resolution_A: float

    @property
    def is_good(self) -> bool:
        """Whether it shows enough to verify with."""
        return self.resolution_A <= _ENOUGH_A


def templates_from_examples(
    places: Sequence[Place], diameters_A: Mapping[str, float], acquisition: Acquisition, device: str = "cpu"
) -> dict[str, Template]:
    """Templates by target.

    places : the tomograms.  diameters_A : of the targets, which labels of examples and peaks name.
    """
    learning = _Learning(places, diameters_A, acquisition, device)
    starts = learning.starts()

    def of_all(function: Callable[[str], _Result], told: str) -> dict[str, _Result]:
        done = progress(side_by_side(function, list(diameters_A)), len(diameters_A), told, "targets")
        return dict(zip(diameters_A, done, strict=True))

    copies = of_all(lambda name: learning.first_alignment(name, starts), "aligning examples")
    for k in range(_ROUNDS):
        known = copies
        found = of_all(lambda name: learning.candidates(name, known[name]), f"looking for copies, {k + 1} of {_ROUNDS}")  # noqa: B023
        copies = learning.chosen(found)
    return of_all(lambda name: learning.template(name, copies[name], starts), "comparing halves")


class _Candidates(NamedTuple):
    """Places that may be copies of one target: `copies`, as `competition` sees them, and which of them are examples (n,)."""

    copies: Copies
    matched: Matched
    example: NDArray[np.bool_]


class _Learning:
    """What is the same in all rounds."""

    def __init__(
        self, places: Sequence[Place], diameters_A: Mapping[str, float], acquisition: Acquisition, device: str
    ) -> None:
        self.places, self.diameters_A, self.acquisition, self.device = places, diameters_A, acquisition, device
        coarsest = max(p.source.voxel_size_A for p in places)
        self.sizes = {name: max(matching_size(d)[0], coarsest) for name, d in diameters_A.items()}
        self.tomograms = {
            size: [Prepared.of(p.source, p.contrast, size, self._finest_A(size), device) for p in places]
            for size in set(self.sizes.values())
        }
        self.chance = spread_places(places[0].source, PLACES_OF_CHANCE, np.random.default_rng(_SETTINGS.seed))

    def starts(self) -> dict[tuple[str, float], Matcher]:
        """Library molecules to begin from, by id and voxel size."""
        library = load_library()
        wanted = sorted({(id_, self.sizes[name]) for name, d in self.diameters_A.items() for id_ in _alike(d)})
        made = side_by_side(lambda one: self._matcher(library.density(one[0]), one[1], _FIRST_STEP_DEG), wanted)
        return dict(zip(wanted, progress(made, len(wanted), "shapes to begin from", "molecules"), strict=True))

    def first_alignment(self, name: str, starts: Mapping[tuple[str, float], Matcher]) -> Copies:
        """Examples and the best peaks, aligned to an average of theirs, without those that fit it worst."""
        copies, example = self._places(name, [p.best for p in self.places], _FIRST_PEAKS)
        end = self._aligned_among_themselves(name, copies, example, starts)
        return end.select(_fitting(end.correlation) | example)

    def _aligned_among_themselves(
        self, name: str, copies: Copies, example: NDArray[np.bool_], starts: Mapping[tuple[str, float], Matcher],
        begins: int = _STARTS,
    ) -> Copies:  # fmt: skip
        """From each of the library molecules that fit them best on; the alignment that fits its average best."""
        tried = [copies.aligned(starts[id_, self.sizes[name]], _REACH)[0] for id_ in _alike(self.diameters_A[name])]
        tried.sort(key=lambda one: -_fit(one.correlation))
        ends = []
        for one in tried[:begins]:
            for _ in range(_ALIGNMENTS):
                density = self._averaged(name, one.select(_fitting(one.correlation) | example))
                one = one.aligned(self._matcher(density, self.sizes[name], _FIRST_STEP_DEG), _REACH)[0]
            ends.append(one)
        return max(ends, key=lambda one: _fit(one.correlation[_fitting(one.correlation)]))

    def candidates(self, name: str, copies: Copies) -> _Candidates:
        """Copies, examples and further peaks, each matched with an average that it is not in."""
        size, diameter_A = self.sizes[name], self.diameters_A[name]
        more, example = self._places(name, [p.peaks for p in self.places], _CANDIDATES)
        near = self._nearest(more, copies, _SAME * diameter_A / size)
        # A copy that is an example stands for it, one that is a peak for that.
        is_example = np.zeros(len(copies), bool)
        is_example[near[example & (near >= 0)]] = True
        everyone = _together(copies, more.select(near < 0))
        example = np.concatenate([is_example, example[near < 0]])
        parts, order, strength, deviations = [], [], [], []
        for k in (0, 1):
            half = np.flatnonzero(np.arange(len(everyone)) % 2 == k)
            # One copy alone is all there is to compare with.
            others = np.arange(len(copies)) % 2 != k if len(copies) > 1 else np.ones(1, bool)
            matcher = self._matcher(self._averaged(name, copies.select(others)), size, matching_size(diameter_A)[1])
            found, strong = everyone.select(half).aligned(matcher, _REACH)
            parts.append(found)
            order.append(half)
            strength.append(strong)
            deviations.append(matcher.deviation(self.tomograms[size][0], self.chance[:, ::-1] / size))
        back = np.argsort(np.concatenate(order))
        matches = _together(*parts).select(back)
        matched = Matched(
            self._apart(matches), matches.correlation, np.concatenate(strength)[back], float(np.mean(deviations)),
            diameter_A, _SETTINGS.separation * diameter_A, mass_of_Da(diameter_A) / 1000, size, self._similarity(name, matches),
        )  # fmt: skip
        return _Candidates(matches, matched, example)

    def chosen(self, candidates: Mapping[str, _Candidates]) -> dict[str, Copies]:
        """The best candidates of each target after competition, and its examples."""
        matched = {name: one.matched for name, one in candidates.items()}
        won = kept_in_competition(matched, scores(matched, {}))
        return {
            name: one.copies.select(np.union1d(won[name][:_MANY], np.flatnonzero(one.example)))
            for name, one in candidates.items()
        }

    def template(self, name: str, copies: Copies, starts: Mapping[tuple[str, float], Matcher]) -> Template:
        """The average of copies, once more aligned to it, and that of others."""
        aligned, decoys = self._once_more(name, copies), self._decoys(name, copies, starts)
        decoy = self._averaged(name, self._once_more(name, decoys)) if len(decoys) else self._averaged(name, aligned)
        return Template(self._averaged(name, aligned), decoy, len(aligned), self._agreement(name, aligned))

    def _once_more(self, name: str, copies: Copies) -> Copies:
        step = matching_size(self.diameters_A[name])[1]
        return copies.aligned(self._matcher(self._averaged(name, copies), self.sizes[name], step), _REACH)[0]

    def _decoys(self, name: str, copies: Copies, starts: Mapping[tuple[str, float], Matcher]) -> Copies:
        """As many peaks that are less similar than twice as many others."""
        peaks, example = self._places(name, [p.peaks for p in self.places], 2 * _MANY + 2 * len(copies))
        near = self._nearest(peaks, copies, _SAME * self.diameters_A[name] / self.sizes[name])
        others = peaks.select(np.flatnonzero((near < 0) & ~example)[_MANY:][: len(copies)])
        if not len(others):
            return others
        return self._aligned_among_themselves(name, others, np.zeros(len(others), bool), starts, 1)

    def _agreement(self, name: str, copies: Copies) -> float:
        """To which detail, A, two halves of the copies agree that were aligned apart from each other, each to its own average."""
        if len(copies) < _FEWEST:
            return float("inf")
        size, step = self.sizes[name], matching_size(self.diameters_A[name])[1]
        # Nothing finer than this have both halves in common when they begin.
        coarse = as_molecule(self._average(name, copies), size, self.diameters_A[name], _COARSE_A)
        volumes = []
        for k in (0, 1):
            half, density = copies.select(np.arange(len(copies)) % 2 == k), coarse
            for _ in range(_OF_HALVES):
                half = half.aligned(self._matcher(density, size, step), _REACH)[0]
                density = self._averaged(name, half)
            volumes.append(self._average(name, half))
        return shell_correlation(volumes[0], volumes[1], size, self.diameters_A[name]).resolution_A(_AGREE)

    def _matcher(self, density: Density, voxel_size_A: float, step_deg: float) -> Matcher:
        finest = self._finest_A(voxel_size_A)
        return Matcher.of(density, self.acquisition, voxel_size_A, finest, step_deg, self.device)

    def _average(self, name: str, copies: Copies) -> NDArray[np.float32]:
        finest = self._finest_A(self.sizes[name])
        return average(copies, self.diameters_A[name], self.acquisition, finest, self.device)

    def _averaged(self, name: str, copies: Copies) -> Density:
        size = self.sizes[name]
        return as_molecule(self._average(name, copies), size, self.diameters_A[name], self._finest_A(size))

    @staticmethod
    def _finest_A(voxel_size_A: float) -> float:
        return max(_SETTINGS.low_pass_A, 2 * voxel_size_A)

    def _places(self, name: str, peaks: Sequence[Coordinates], most: int) -> tuple[Copies, NDArray[np.bool_]]:
        """Examples and the best `most` of these peaks that are none, without orientations, and which of them are examples."""
        size = self.sizes[name]
        examples = self._table([p.examples for p in self.places], name, size)
        listed = self._table(peaks, name, size)
        score = np.concatenate([t.score[t.label == name] for t in peaks])
        fresh = self._nearest(listed, examples, _SAME * self.diameters_A[name] / size) < 0
        best = np.flatnonzero(fresh)[np.argsort(-score[fresh], kind="stable")][:most]
        return _together(examples, listed.select(best)), np.arange(len(examples) + len(best)) < len(examples)

    def _table(self, tables: Sequence[Coordinates], name: str, size: float) -> Copies:
        own = [t.select(t.label == name) for t in tables]
        of = np.repeat(np.arange(len(own)), [len(t) for t in own])
        zyx = np.concatenate([t.xyz[:, ::-1] * t.voxel_size_A / size for t in own])
        return Copies(self.tomograms[size], of, zyx, np.zeros((len(of), 3, 3)), np.zeros(len(of)))

    @staticmethod
    def _nearest(copies: Copies, others: Copies, reach: float) -> NDArray[np.int64]:
        """The nearest of `others` within `reach` voxels in the same tomogram, -1 where there is none."""
        nearest = np.full(len(copies), -1)
        for k in range(len(copies.tomograms)):
            here, there = np.flatnonzero(copies.of == k), np.flatnonzero(others.of == k)
            if len(here) and len(there):
                distance, index = cKDTree(others.zyx[there]).query(copies.zyx[here])
                nearest[here] = np.where(distance <= reach, there[index], -1)
        return nearest

    def _apart(self, copies: Copies) -> NDArray[np.float64]:
        """Places x, y, z in A, those of different tomograms far from each other."""
        xyz = copies.zyx[:, ::-1] * copies.tomograms[0].voxel_size_A
        return np.asarray(xyz + _FAR_A * copies.of[:, None])

    def _similarity(self, name: str, copies: Copies) -> NDArray[np.float64]:
        found = np.zeros(len(copies))
        for k, place in enumerate(self.places):
            here = copies.of == k
            xyz = copies.zyx[here][:, ::-1] * copies.tomograms[k].voxel_size_A / place.source.voxel_size_A
            found[here] = place.similarity(name, np.clip(xyz, 0, np.array(place.source.shape[::-1]) - 1))
        return found


def _alike(diameter_A: float) -> list[str]:
    """Library molecules of about this diameter, evenly over their masses."""
    library = load_library()
    entries = [library.entries[i] for i in library.ids("train")]
    near = sorted(entries, key=lambda e: abs(np.log(e.diameter_A / diameter_A)))
    alike = [e for e in near if abs(np.log(e.diameter_A / diameter_A)) < _ALIKE] or near[:_TRIED]
    alike.sort(key=lambda e: (e.mass_kDa, e.id))
    return [alike[i].id for i in np.unique(np.linspace(0, len(alike) - 1, _TRIED).round().astype(int))]


def _together(first: Copies, second: Copies) -> Copies:
    parts = ((getattr(first, f), getattr(second, f)) for f in ("of", "zyx", "rotation", "correlation"))
    return Copies(first.tomograms, *(np.concatenate(both) for both in parts))


def _fit(correlation: NDArray[np.float64]) -> float:
    return float(np.mean(np.arctanh(np.clip(correlation, -0.999, 0.999))))


def _fitting(correlation: NDArray[np.float64]) -> NDArray[np.bool_]:
    """All but those that fit worst."""
    return np.asarray(correlation >= np.quantile(correlation, _MISFITS))
