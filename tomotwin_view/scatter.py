"""Panel: the UMAP of all candidates, one dot each, in the colours of their clusters; a line drawn around some selects them.

The dots are drawn once and kept as pixels; what is selected, the cross-hair's candidate and the line being drawn come over a
copy of them. Distances in a UMAP mean little: clusters were found among the embeddings, not here.
"""

from typing import Any, Callable, List, Optional, Tuple

import numpy as np
from matplotlib.figure import Figure

from .cluster_session import ClustersSession
from .colours import cluster_colours
from .mouse import Lasso, held
from .scale_bar import OUTLINE

BACKGROUND = "#202020"
REACH_PIXELS = 7.0
MOST_NAMES = 12


class ScatterPanel:
    """Draws into `figure`, answers its mouse, and follows the session; arguments as `SlicesPanel`."""

    def __init__(
        self,
        figure: Figure,
        session: ClustersSession,
        later: Optional[Callable[[Callable[[], None]], None]] = None,
    ) -> None:
        self.figure, self.session, self._later = figure, session, later
        self._stale, self._pixels = False, None
        self._lasso: Optional[Lasso] = None
        self._pan_from: Optional[Tuple[float, float]] = None
        self._names: List[Any] = []
        figure.set_facecolor(BACKGROUND)
        self.axes = figure.add_axes((0, 0, 1, 1), facecolor=BACKGROUND)
        self.axes.set_axis_off()
        umap = session.candidates.umap
        self.size = float(np.clip(30_000 / max(len(umap), 1), 3, 28))
        self.dots = self.axes.scatter(umap[:, 0], umap[:, 1], s=self.size, linewidths=0)
        self._rings: Any = self.axes.scatter(
            [], [], s=1.6 * self.size + 6, facecolors="none", edgecolors="white", linewidths=0.8, animated=True
        )
        (self._line,) = self.axes.plot([], [], color="white", linewidth=1.2, animated=True)
        self._here: Any = self.axes.scatter([], [], s=260, marker="+", color="#40E0FF", linewidths=1.2, animated=True)
        self._title = self.axes.text(
            0.01, 0.99, "", transform=self.axes.transAxes, color="white", va="top", fontsize=9, animated=True
        )
        for name, answer in [
            ("draw_event", self._drawn),
            ("scroll_event", self._scrolled),
            ("button_press_event", self._pressed),
            ("button_release_event", self._released),
            ("motion_notify_event", self._moved),
        ]:
            figure.canvas.mpl_connect(name, answer)
        session.listeners.append(self._heard)
        self.whole()
        self.refresh()

    # ------------------------------ what is shown ------------------------------
    def whole(self) -> None:
        """All candidates in view."""
        umap = self.session.candidates.umap
        low, high = (umap.min(axis=0), umap.max(axis=0)) if len(umap) else (np.zeros(2), np.ones(2))
        margin = 0.06 * max(*(high - low), 1e-3)
        self.axes.set_xlim(low[0] - margin, high[0] + margin)
        self.axes.set_ylim(low[1] - margin, high[1] + margin)
        self.figure.canvas.draw_idle()

    def zoom(self, factor: float, centre: Optional[Tuple[float, float]] = None) -> None:
        """Magnify around a place in the UMAP, its middle by default."""
        limits = np.array([self.axes.get_xlim(), self.axes.get_ylim()])
        middle = limits.mean(axis=1) if centre is None else np.array(centre)
        limits = middle[:, None] + (limits - middle[:, None]) / factor
        self.axes.set_xlim(*limits[0])
        self.axes.set_ylim(*limits[1])
        self.figure.canvas.draw_idle()

    def refresh(self) -> None:
        """Colour the dots and write the names anew; the cluster at hand lies on top, what is in none at the bottom.

        Names are those of the cluster at hand and the best of those picked: more could not be read.
        """
        session, umap = self.session, self.session.candidates.umap
        self._stale = False
        at_hand = session.members(session.at_hand) & (session.label >= 0)
        order = np.argsort(np.where(at_hand, 3, np.where(session.picked(), 2, session.label >= 0)), kind="stable")
        self.dots.set_offsets(umap[order])
        colours: Any = cluster_colours(session)[order]
        self.dots.set_facecolor(colours)
        self.dots.set_sizes(np.where(at_hand, 1.8, 1.0)[order] * self.size)
        self.dots.set_edgecolor("white")
        self.dots.set_linewidth(np.where(at_hand, 0.8, 0.0)[order].tolist())
        for text in self._names:
            text.remove()
        self._names = []
        picked = [number for number, entry in enumerate(session.entries) if entry.picked]
        for number in sorted({*picked[:MOST_NAMES], session.at_hand} & set(range(len(session.entries)))):
            rows = session.members(number)
            if rows.any():
                self._names.append(self._name(session.entries[number].name, umap[rows]))
        self.figure.canvas.draw_idle()

    def close(self) -> None:
        self.session.listeners.remove(self._heard)

    def _name(self, name: str, places: np.ndarray) -> Any:
        """A name above the middle of the members."""
        x, y = np.median(places[:, 0]), np.percentile(places[:, 1], 97)
        text = self.axes.annotate(
            name, (x, y), xytext=(0, 5), textcoords="offset points", color="white", fontsize=8, ha="center"
        )
        text.set_path_effects(OUTLINE)
        return text

    # ------------------------------ following, drawing ------------------------------
    def _heard(self, what: str) -> None:
        if what == "cursor":
            return
        if what in ("filter", "view", "tomogram"):
            self._stale = True
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
        if self._pixels is None:
            return
        session, umap, canvas = self.session, self.session.candidates.umap, self.figure.canvas
        canvas.restore_region(self._pixels)  # type: ignore[attr-defined]
        self._rings.set_offsets(umap[session.selection])
        self._here.set_offsets(umap[[] if session.focus is None else [session.focus]])
        self._line.set_data(*(self._lasso.outline() if self._lasso else ([], [])))
        number = int(session.selection.sum())
        self._title.set_text(f"UMAP  {len(umap)} candidates" + (f", {number} selected" if number else ""))
        for artist in (self._rings, self._here):
            if len(artist.get_offsets()):  # without any, one is drawn in the corner
                self.axes.draw_artist(artist)
        self.axes.draw_artist(self._line)
        self.axes.draw_artist(self._title)

    # ------------------------------ mouse ------------------------------
    def candidate_at(self, x: float, y: float) -> Optional[int]:
        """The candidate whose dot is nearest to a place in the UMAP, if it is near on the screen."""
        umap = self.session.candidates.umap
        if not len(umap):
            return None
        to_screen = self.axes.transData.transform
        away = np.hypot(*(to_screen(umap) - to_screen((x, y))).T)
        return int(away.argmin()) if away.min() <= REACH_PIXELS else None

    def _scrolled(self, event: Any) -> None:
        if event.inaxes is self.axes:
            self.zoom(1.25**event.step, (event.xdata, event.ydata))

    def _pressed(self, event: Any) -> None:
        if event.inaxes is not self.axes:
            return
        if event.button == 2:
            self._pan_from = (event.xdata, event.ydata)
        elif event.button == 3:
            row = self.candidate_at(event.xdata, event.ydata)
            if row is not None:
                self.session.toggle(row)
        elif event.button == 1:
            self._lasso = Lasso(event.xdata, event.ydata)

    def _moved(self, event: Any) -> None:
        if self._lasso is not None:
            self._lasso.go_on(event, self.axes)
            self._heard("selection")
        elif self._pan_from is not None and event.inaxes is self.axes:
            dx, dy = self._pan_from[0] - event.xdata, self._pan_from[1] - event.ydata
            self.axes.set_xlim(*(np.array(self.axes.get_xlim()) + dx))
            self.axes.set_ylim(*(np.array(self.axes.get_ylim()) + dy))
            self.figure.canvas.draw_idle()

    def _released(self, event: Any) -> None:
        self._pan_from = None
        if self._lasso is None:
            return
        lasso, self._lasso = self._lasso, None
        how = "add" if held(event, "shift") else "remove" if held(event, "control") else "replace"
        if not lasso.is_click:
            self.session.select(lasso.holds(self.session.candidates.umap), how)
            if how != "remove":
                self.session.show_selection()
            return
        row = self.candidate_at(*lasso.start)
        if row is None:
            self.session.select(np.array([], dtype=int), how)
        elif how == "replace":
            self.session.go_to(row)
        else:
            self.session.select(np.array([row]), how)
