"""Panel: the scores of the target that is edited, its threshold as a line to drag, and the expected FDR."""

from typing import Any, Callable, Optional

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from .colours import LEFT_OUT, score_colours, target_colour
from .session import PicksSession

BINS = 60


class HistogramPanel:
    """Draws into `figure`, answers its mouse, and follows the session; arguments as `SlicesPanel`.

    `per_tomogram`: show and change the current tomogram alone instead of all; `log`: counts on a logarithmic axis.
    """

    def __init__(
        self,
        figure: Figure,
        session: PicksSession,
        later: Optional[Callable[[Callable[[], None]], None]] = None,
    ) -> None:
        self.figure, self.session = figure, session
        self.per_tomogram, self.log = False, True
        self._later, self._stale = later, True
        self._pixels: Any = None
        self.axes = figure.add_axes((0.13, 0.18, 0.72, 0.72))
        self.fdr_axes: Any = self.axes.twinx()
        self.fdr_axes.set_position(self.axes.get_position())
        for name, answer in [
            ("draw_event", self._drawn),
            ("button_press_event", self._dragged),
            ("motion_notify_event", self._dragged),
            ("button_release_event", lambda _: session.end_of_drag()),
        ]:
            figure.canvas.mpl_connect(name, answer)
        session.listeners.append(self._heard)
        self.refresh()

    @property
    def tomogram(self) -> Optional[int]:
        """The tomogram whose scores are shown and whose threshold is changed; None for all."""
        return self.session.current if self.per_tomogram else None

    def threshold(self) -> float:
        """The threshold shown: the one tomogram's, or of all of them the median; -inf where there is none."""
        values = self.session.score_min[:, self.session.edited]
        values = values[~np.isnan(values)] if self.tomogram is None else values[[self.tomogram]]
        return float(np.median(values)) if len(values) and not np.isnan(values[0]) else -np.inf

    def refresh(self) -> None:
        """Count and draw everything anew."""
        session = self.session
        self._stale = False
        rows = session.rows(session.edited, self.tomogram)
        scores = session.picks.score[rows]
        scores = scores[np.isfinite(scores)]
        for axes in (self.axes, self.fdr_axes):
            axes.clear()
        low, high = (scores.min(), scores.max()) if len(scores) else (0.0, 1.0)
        margin = 0.02 * max(high - low, 1e-3)
        self.edges = np.linspace(low - margin, high + margin, BINS + 1)
        self.numbers = np.histogram(scores, self.edges)[0]
        self.axes.set_yscale("symlog" if self.log else "linear", **({"linthresh": 1.0} if self.log else {}))
        self.axes.set_ylim(0, max(self.numbers.max(initial=1) * (1.6 if self.log else 1.1), 1.1))
        self.axes.set_xlim(self.edges[0], self.edges[-1])
        self.axes.set_xlabel("score", fontsize=8)
        self.axes.set_ylabel("candidates", fontsize=8)
        where = "all tomograms" if self.tomogram is None else session.tomograms[session.current].name
        self.axes.set_title(f"{session.targets[session.edited] or 'picks'}, {where}", fontsize=9)
        self.axes.add_collection(PolyCollection(self._bars(self.numbers), facecolors=LEFT_OUT), autolim=False)
        self._kept = PolyCollection([], animated=True)
        self.axes.add_collection(self._kept, autolim=False)
        self._line = self.axes.axvline(0, color="black", linewidth=1.6, animated=True)
        self._draw_fdr(rows)
        for axes in (self.axes, self.fdr_axes):
            axes.tick_params(labelsize=7)
        self._pixels = None
        self.figure.canvas.draw_idle()

    def close(self) -> None:
        self.session.listeners.remove(self._heard)

    # ------------------------------ helpers ------------------------------
    def _bars(self, numbers: np.ndarray) -> Any:
        """Corners (bin, 4, 2) of the bars."""
        left, right, floor = self.edges[:-1], self.edges[1:], np.zeros(BINS)
        corners = [(left, floor), (left, numbers), (right, numbers), (right, floor)]
        return np.stack([np.stack(corner, axis=1) for corner in corners], axis=1)

    def _draw_fdr(self, rows: np.ndarray) -> None:
        picks = self.session.picks
        known = np.flatnonzero(rows & np.isfinite(picks.fdr) & np.isfinite(picks.score))
        self.fdr_axes.set_visible(bool(len(known)))
        for tomogram in np.unique(picks.tomogram[known]):
            own = known[picks.tomogram[known] == tomogram]
            own = own[np.argsort(picks.score[own])]
            width = 1.6 if self.tomogram is not None or len(self.session.tomograms) == 1 else 0.6
            self.fdr_axes.plot(picks.score[own], picks.fdr[own], color="#B00020", linewidth=width)
        self.fdr_axes.set_ylim(0, 1.02)
        self.fdr_axes.yaxis.set_label_position("right")
        self.fdr_axes.set_ylabel("expected FDR", fontsize=8, color="#B00020")

    def _heard(self, what: str) -> None:
        if what in ("view", "tomogram"):
            self._stale = True
        if what in ("view", "tomogram", "filter"):
            if self._later is None:
                self._update()
            else:
                self._later(self._update)

    def _update(self) -> None:
        if self._stale:
            self.refresh()
        else:
            self._paint()
            self.figure.canvas.blit(self.figure.bbox)

    def _drawn(self, _: Any) -> None:
        canvas: Any = self.figure.canvas
        self._pixels = canvas.copy_from_bbox(self.figure.bbox)
        self._paint()

    def _paint(self) -> None:
        """The bars above the threshold in colour, and its line."""
        if self._pixels is None:
            return
        session, threshold = self.session, self.threshold()
        canvas: Any = self.figure.canvas
        canvas.restore_region(self._pixels)
        middles = (self.edges[:-1] + self.edges[1:]) / 2
        self._kept.set_verts(self._bars(np.where(self.edges[1:] > threshold, self.numbers, 0)))
        colour: Any = target_colour(session.edited)
        if session.colour_by == "score":
            colour = score_colours(session, middles, session.edited)
        self._kept.set_facecolor(colour)
        self.axes.draw_artist(self._kept)
        if np.isfinite(threshold):
            self._line.set_xdata([threshold] * 2)
            self.axes.draw_artist(self._line)

    def _dragged(self, event: Any) -> None:
        if event.button == 1 and event.inaxes in (self.axes, self.fdr_axes):
            self.session.set_score_min(event.xdata, self.session.edited, self.tomogram)
