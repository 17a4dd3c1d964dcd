"""What is decided in a picking window: which picks stay, by thresholds and by hand. No window is needed for it.

A session holds the candidates of one or several tomograms and targets in one table whose rows keep their order, so that
who made it finds his own rows again in `accepted`. A pick stays when its score is at least the threshold of its
target and its tomogram and its diameter lies in its target's range, unless it was accepted or rejected by hand.

Tomograms, cross-hair, selection, listeners and undo are those of session_base.py.
"""

from typing import Dict, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from .session_base import Tomogram, TomogramSession

ACCEPTED, REJECTED, UNDECIDED = 1, 0, -1
"""What a person said of a pick; the values of the STAR column tomotwinAccepted."""

class Picks(NamedTuple):
    """Candidates, one row each.

    tomogram, target : int (n,), positions in the session's lists. xyz : (n, 3) voxels. score : (n,), NaN where there is
    none. diameter_A : (n,), NaN where unknown. fdr : (n,), the false-discovery rate to expect when all of this target
    in this tomogram that score at least as high are kept; NaN where unknown. extra : further columns of a STAR file,
    label to values (n,), which are handed through.
    """

    tomogram: np.ndarray
    target: np.ndarray
    xyz: np.ndarray
    score: np.ndarray
    diameter_A: np.ndarray
    fdr: np.ndarray
    extra: Dict[str, np.ndarray]


def with_candidates(picks: Picks, candidates: Picks, shape: Tuple[int, int]) -> Tuple[Picks, np.ndarray, np.ndarray]:
    """Picks together with the fainter candidates that the thresholds left out, and those thresholds.

    The threshold of a target in a tomogram is the lowest score of its picks there; where it has none, just above its best
    candidate; where it has neither, NaN. Of the candidates, those below it are taken. So a session begins with exactly the picks.

    Parameters
    ----------
    picks, candidates : Picks
    shape : (int, int)
        Number of tomograms and of targets.

    Returns
    -------
    All rows, picks first; the thresholds (tomogram, target); and which candidates were taken, boolean.
    """
    lowest, best = np.full(shape, np.inf), np.full(shape, -np.inf)
    np.minimum.at(lowest, (picks.tomogram, picks.target), np.where(np.isnan(picks.score), -np.inf, picks.score))
    np.maximum.at(best, (candidates.tomogram, candidates.target), candidates.score)
    above_all = np.where(np.isneginf(best), np.nan, np.nextafter(best, np.inf))
    score_min = np.where(np.isposinf(lowest), above_all, lowest)
    faint = candidates.score < score_min[candidates.tomogram, candidates.target]
    both = {label: candidates.extra[label] for label in picks.extra if label in candidates.extra}
    joined = [np.concatenate([ours, theirs[faint]]) for ours, theirs in zip(picks[:-1], candidates[:-1])]
    extra = {label: np.concatenate([picks.extra[label], values[faint]]) for label, values in both.items()}
    return Picks(*joined, extra), score_min, faint  # type: ignore[call-arg]


class _State(NamedTuple):
    """What undo brings back."""

    score_min: np.ndarray
    size_range: np.ndarray
    decisions: np.ndarray


class PicksSession(TomogramSession):
    """Thresholds, decisions and view of a set of candidates.

    Parameters
    ----------
    tomograms, targets : sequences
        The tomograms, and the names of the targets.
    picks : Picks
    score_min : (tomogram, target) array, optional
        The thresholds to begin with; without them everything stays.
    """

    def __init__(
        self,
        tomograms: Sequence[Tomogram],
        targets: Sequence[str],
        picks: Picks,
        score_min: Optional[np.ndarray] = None,
    ) -> None:
        super().__init__(tomograms, picks.tomogram, picks.xyz, picks.diameter_A)
        self.targets = list(targets)
        self.picks = picks
        shape = (len(self.tomograms), len(self.targets))
        self.score_min = np.full(shape, -np.inf) if score_min is None else np.array(score_min, dtype=float)
        self.size_range = np.tile([0.0, np.inf], (len(self.targets), 1))
        self.decisions = np.full(len(picks.score), UNDECIDED, dtype=np.int8)
        self.shown = np.ones(len(self.targets), dtype=bool)
        self.edited = 0
        self.colour_by = "target"
        self._accepted: Optional[np.ndarray] = None

    # ------------------------------ which picks stay ------------------------------
    def accepted(self) -> np.ndarray:
        """Boolean (n,): the picks that stay."""
        if self._accepted is None:
            score, size = self.picks.score, self.picks.diameter_A
            low, high = self.size_range[self.picks.target].T
            # Written so that an unknown score or size (NaN) passes.
            passes = ~(score < self.score_min[self.picks.tomogram, self.picks.target]) & ~(size < low) & ~(size > high)
            self._accepted = (self.decisions == ACCEPTED) | ((self.decisions == UNDECIDED) & passes)
        return self._accepted

    def counts(self, tomogram: Optional[int] = None) -> np.ndarray:
        """(target, 2): how many stay and how many candidates there are, in one tomogram or in all."""
        rows = self.rows(tomogram=tomogram)
        target, number = self.picks.target[rows], len(self.targets)
        stay = np.bincount(target[self.accepted()[rows]], minlength=number)
        return np.stack([stay, np.bincount(target, minlength=number)], axis=1)

    def rows(self, target: Optional[int] = None, tomogram: Optional[int] = None) -> np.ndarray:
        """Boolean (n,): the candidates of a target, of a tomogram, or of both."""
        chosen = np.ones(len(self.picks.score), dtype=bool)
        if target is not None:
            chosen &= self.picks.target == target
        if tomogram is not None:
            chosen &= self.picks.tomogram == tomogram
        return chosen

    def visible(self) -> np.ndarray:
        """Boolean (n,): the picks of the current tomogram that are drawn.

        Those left out by a threshold are drawn on demand, those rejected by hand always: a click takes them back.
        """
        drawn = self.rows(tomogram=self.current) & self.shown[self.picks.target]
        return drawn if self.show_left_out else drawn & (self.accepted() | (self.decisions == REJECTED))

    def set_score_min(self, value: float, target: int, tomogram: Optional[int] = None) -> None:
        """Another threshold for a target, in one tomogram or in all."""
        self._remember(("score", target, tomogram))
        self.score_min[slice(None) if tomogram is None else tomogram, target] = value
        self._decided()

    def set_size_range(self, low: float, high: float, target: int) -> None:
        """Keep picks of a target whose diameter lies within this range, in A."""
        self._remember(("size", target))
        self.size_range[target] = low, high
        self._decided()

    def decide(self, rows: np.ndarray, decision: int) -> None:
        """Accept or reject picks by hand, or leave them to the thresholds again (UNDECIDED)."""
        self._remember()
        self.decisions[rows] = decision
        self._decided()

    def toggle(self, row: int) -> None:
        """Reject what stays, accept what does not."""
        self.decide(np.array([row]), REJECTED if self.accepted()[row] else ACCEPTED)

    # ------------------------------ false-discovery rate ------------------------------
    def expected_fdr(self, target: int, tomogram: Optional[int] = None) -> float:
        """The share of false picks to expect at the present thresholds of a target; NaN where it is not known.

        Of several tomograms it is the mean, each counting with its number of picks.
        """
        false = number = 0.0
        for index in range(len(self.tomograms)) if tomogram is None else [tomogram]:
            rows = self.rows(target, index) & (self.picks.score >= self.score_min[index, target])
            if rows.any():
                lowest = np.flatnonzero(rows)[np.argmin(self.picks.score[rows])]
                false += self.picks.fdr[lowest] * rows.sum()
                number += rows.sum()
        return false / number if number else float("nan")

    def set_fdr(self, value: float, target: int, tomogram: Optional[int] = None) -> None:
        """Set the threshold of a target, tomogram by tomogram, to the lowest whose expected FDR is at most this."""
        self._remember()
        for index in range(len(self.tomograms)) if tomogram is None else [tomogram]:
            rows = self.rows(target, index) & np.isfinite(self.picks.fdr)
            if rows.any():
                score, fdr = self.picks.score[rows], self.picks.fdr[rows]
                nothing = np.nextafter(score.max(), np.inf)
                self.score_min[index, target] = score[fdr <= value].min() if (fdr <= value).any() else nothing
        self._decided()

    # ------------------------------ undo ------------------------------
    def restore(self, score_min: np.ndarray, size_range: np.ndarray, decisions: np.ndarray) -> None:
        """Take over thresholds and decisions, as one step for undo."""
        self._remember()
        self.score_min, self.size_range, self.decisions = score_min.copy(), size_range.copy(), decisions.copy()
        self._decided()

    # ------------------------------ view ------------------------------
    def step(self, forward: bool) -> None:
        """Go to the next pick drawn in this tomogram, by falling score, or to the one before; round at the ends."""
        rows = np.flatnonzero(self.visible())
        if not len(rows):
            return
        rows = rows[np.argsort(-np.nan_to_num(self.picks.score[rows]), kind="stable")]
        at = np.flatnonzero(self.selection[rows])
        here = int(at[0]) if len(at) else (-1 if forward else 0)
        self.go_to(int(rows[(here + (1 if forward else -1)) % len(rows)]))

    def show_target(self, target: int, shown: bool) -> None:
        self.shown[target] = shown
        self.tell("view")

    def edit_target(self, target: int) -> None:
        """Choose the target whose histogram and sliders are shown."""
        self.edited = target
        self.tell("view")

    def set_view(self, colour_by: Optional[str] = None, show_left_out: Optional[bool] = None) -> None:
        """Colour picks by "target" or "score"; draw those that the thresholds leave out, or not."""
        self.colour_by = self.colour_by if colour_by is None else colour_by
        self.show_left_out = self.show_left_out if show_left_out is None else show_left_out
        self.tell("view")

    # ------------------------------ helpers ------------------------------
    def _turned(self) -> None:
        self.selection[:] = False

    def _state(self) -> _State:
        return _State(self.score_min.copy(), self.size_range.copy(), self.decisions.copy())

    def _set_state(self, state: _State) -> None:
        self.score_min, self.size_range, self.decisions = state

    def _decided(self) -> None:
        self._accepted = None
        super()._decided()
