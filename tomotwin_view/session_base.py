"""What every session of a window has: places in tomograms, a cross-hair, a selection, listeners and undo.

`PicksSession` (session.py) decides which picks stay, `ClustersSession` (cluster_session.py) which clusters are picked.
The slices (slices.py) and what surrounds them (base_window.py) need to know no more of a session than is here.

Panels listen: a function in `listeners` is called with the name of what has changed,

    "tomogram"   another one is shown         "filter"     what was decided (thresholds, picks, clusters)
    "cursor"     the cross-hair has moved     "selection"  which places are selected (by a click, a lasso)
    "view"       what is drawn of the places (kinds shown, the one at hand, colours)

Positions are x, y, z in voxels of their tomogram, a voxel's centre is its integer index; diameters are in Angstrom.
"""

from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

UNDO_STEPS = 100

DEFAULT_DIAMETER_VOX = 12.0
"""Drawn where a diameter is not known."""


class Tomogram(NamedTuple):
    """A tomogram that the window can show: shape (z, y, x); `open` gives its voxels [z, y, x], best memory-mapped."""

    name: str
    voxel_size_A: float
    shape: Tuple[int, int, int]
    open: Callable[[], np.ndarray]


class TomogramSession:
    """Places in tomograms, and what is looked at.

    Parameters
    ----------
    tomograms : sequence
        At least one.
    tomogram : int (n,)
        Which of them each place is in.
    xyz : (n, 3)
        In voxels of that tomogram.
    diameter_A : (n,)
        NaN where it is not known.
    """

    def __init__(
        self, tomograms: Sequence[Tomogram], tomogram: np.ndarray, xyz: np.ndarray, diameter_A: np.ndarray
    ) -> None:
        self.tomograms = list(tomograms)
        self.tomogram, self.xyz, self.diameter_A = tomogram, xyz, diameter_A
        self.selection = np.zeros(len(xyz), dtype=bool)
        self.current = 0
        self.cursor = np.array(self.tomograms[0].shape[::-1]) // 2
        self.show_left_out = False
        self.changed = False
        """Whether something was decided since `changed` was last set to False, by who saved it."""
        self.listeners: List[Callable[[str], None]] = []
        self._undo: List[Any] = []
        self._redo: List[Any] = []
        self._going_on: Optional[tuple] = None

    # ------------------------------ what a session says ------------------------------
    def visible(self) -> np.ndarray:
        """Boolean (n,): the places of the current tomogram that are drawn."""
        raise NotImplementedError

    def toggle(self, row: int) -> None:
        """Throw out a place, or take it back."""
        raise NotImplementedError

    def step(self, forward: bool) -> None:
        """Go to the next place, or to the one before; round at the ends."""
        raise NotImplementedError

    def _state(self) -> Any:
        """What undo brings back, copied."""
        raise NotImplementedError

    def _set_state(self, state: Any) -> None:
        raise NotImplementedError

    # ------------------------------ view ------------------------------
    def show_tomogram(self, index: int) -> None:
        """Turn to another tomogram, round again at the ends, and its middle."""
        index %= len(self.tomograms)
        if index != self.current:
            self.current = index
            self.cursor = np.array(self.tomograms[index].shape[::-1]) // 2
            self._turned()
            self.tell("tomogram")

    def move_cursor(self, xyz: np.ndarray) -> None:
        """Move the cross-hair to the voxel nearest to this place (within the tomogram)."""
        size = np.array(self.tomograms[self.current].shape[::-1])
        cursor = np.clip(np.rint(xyz), 0, size - 1).astype(int)
        if (cursor != self.cursor).any():
            self.cursor = cursor
            self.tell("cursor")

    def select(self, rows: np.ndarray, how: str = "replace") -> None:
        """Select places, a boolean (n,) or an array of row numbers; "add" them to what is selected, or "remove" them."""
        if how == "replace":
            self.selection[:] = False
        self.selection[rows] = how != "remove"
        self.tell("selection")

    def go_to(self, row: int) -> None:
        """Select one place and bring the cross-hair there."""
        self.show_tomogram(int(self.tomogram[row]))
        self.select(np.array([row]))
        self.move_cursor(self.xyz[row])

    def leave(self) -> None:
        """The user has clicked beside all places: nothing is selected any more."""
        self.select(np.array([], dtype=int))

    def radii_vox(self, rows: np.ndarray) -> np.ndarray:
        """Radii of places in voxels of their tomogram."""
        sizes = np.array([tomogram.voxel_size_A for tomogram in self.tomograms])
        diameters = self.diameter_A[rows] / sizes[self.tomogram[rows]]
        return np.where(np.isfinite(diameters), diameters, DEFAULT_DIAMETER_VOX) / 2

    def tell(self, what: str) -> None:
        """Let every listener know what has changed."""
        for listener in list(self.listeners):
            listener(what)

    # ------------------------------ undo ------------------------------
    def undo(self) -> None:
        self._step_back(self._undo, self._redo)

    def redo(self) -> None:
        self._step_back(self._redo, self._undo)

    def end_of_drag(self) -> None:
        """The next change is a step of its own for undo, even when it moves the same slider."""
        self._going_on = None

    # ------------------------------ helpers ------------------------------
    def _turned(self) -> None:
        """What else changes with the tomogram, before it is told."""

    def _decided(self) -> None:
        self.changed = True
        self.tell("filter")

    def _remember(self, change: Optional[tuple] = None) -> None:
        """Keep the state for undo; a slider that goes on moving is one step."""
        if change is None or change != self._going_on:
            self._undo.append(self._state())
            del self._undo[:-UNDO_STEPS]
        self._going_on = change
        self._redo.clear()

    def _step_back(self, source: List[Any], other: List[Any]) -> None:
        if source:
            other.append(self._state())
            self._set_state(source.pop())
            self._going_on = None
            self._decided()
