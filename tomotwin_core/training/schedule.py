"""How the learning rate goes: warm-up and cosine, or down at plateaus of the loss."""

from __future__ import annotations

import math
from typing import Any

from tomotwin_core.training.settings import TrainingSettings

# A loss counts as better when it is lower by this share: what torch's ReduceLROnPlateau takes.
_LEAST_GAIN = 1e-4


class Schedule:
    """The learning rate of every step. With simulation that is never the same twice, the training loss is that of data
    not seen before, so the plateau schedule looks at it."""

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self.factor, self.best, self.waited = 1.0, math.inf, 0
        self.looked: list[float] = []

    def rate(self, step: int) -> float:
        """Of step 0, 1 ...: a linear warm-up, then the cosine's fall to a hundredth, or the plateaus' factor."""
        s = self.settings
        if step < s.warmup:
            return s.learning_rate * (step + 1) / s.warmup
        if s.schedule == "plateau":
            return s.learning_rate * self.factor
        turn = (step - s.warmup) / max(s.steps - s.warmup, 1)
        return s.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(turn, 1.0))))

    def look(self, loss: float) -> None:
        """Take note of a step's loss; every `plateau_every` steps their mean is compared with the best before."""
        self.looked.append(loss)
        if len(self.looked) < self.settings.plateau_every:
            return
        mean = sum(self.looked) / len(self.looked)
        self.looked = []
        if mean < self.best * (1 - _LEAST_GAIN):
            self.best, self.waited = mean, 0
            return
        self.waited += 1
        if self.waited > self.settings.plateau_patience:
            self.factor *= self.settings.plateau_factor
            self.waited = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON can hold it."""
        best = None if math.isinf(self.best) else self.best
        return {"factor": self.factor, "best": best, "waited": self.waited, "looked": self.looked}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.factor, self.waited, self.looked = state["factor"], state["waited"], list(state["looked"])
        self.best = math.inf if state["best"] is None else state["best"]
