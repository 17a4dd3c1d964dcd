"""What panels make of the mouse: modifier keys, and a line drawn around points."""

from typing import Any, List, Tuple

import numpy as np
from matplotlib.path import Path


def held(event: Any, key: str) -> bool:
    """Whether "shift" or "control" was held down; matplotlib before 3.7 knows it only from the keys that it saw."""
    modifiers = getattr(event, "modifiers", None) or ()
    names = {"control": ("control", "ctrl")}.get(key, (key,))
    return any(name in modifiers or name in str(event.key) for name in names)


class Lasso:
    """A line drawn around points; it closes itself from its last point to its first."""

    def __init__(self, x: float, y: float) -> None:
        self.points: List[Tuple[float, float]] = [(x, y)]

    @property
    def start(self) -> Tuple[float, float]:
        return self.points[0]

    @property
    def is_click(self) -> bool:
        """Whether it encloses nothing, having hardly moved."""
        return len(self.points) < 3

    def go_on(self, event: Any, axes: Any) -> None:
        """The mouse has come to another place; beyond the axes that at their rim."""
        box = axes.bbox
        rim = np.clip((event.x, event.y), (box.x0, box.y0), (box.x1, box.y1))
        x, y = axes.transData.inverted().transform(rim)
        self.points.append((float(x), float(y)))

    def outline(self) -> Tuple[List[float], List[float]]:
        """The closed line, as x and y."""
        x, y = zip(*self.points, self.points[0])
        return list(x), list(y)

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Boolean (n,): which of the points (n, 2) lie inside."""
        if self.is_click or not len(points):
            return np.zeros(len(points), dtype=bool)
        return np.asarray(Path(self.points).contains_points(points))
