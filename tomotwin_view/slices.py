"""Panel: one tomogram in three orientations, joined by a cross-hair, with the places as the circles that each slice cuts.

The image of a slice is drawn once and kept as pixels; circles and cross-hair are drawn over a copy of it, and only the
part of the window that has changed is sent to the screen. So a slider stays fluid over a slow connection.
"""

from functools import partial
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from .colours import Styles, pick_styles
from .mouse import Lasso, held
from .scale_bar import OUTLINE, ScaleBar
from .session_base import TomogramSession
from .slabs import LatestOnly, grey_range, slab

BACKGROUND = "#202020"
GAP_PIXELS = 6

class _View:
    """One orientation: looks along an axis, shows two others. Axes are numbered x 0, y 1, z 2."""

    def __init__(self, figure: Figure, name: str, along: int, across: int, up: int) -> None:
        self.name, self.along, self.across, self.up = name, along, across, up
        self.axes = figure.add_axes((0, 0, 1, 1), facecolor="black")
        self.axes.set_axis_off()
        self.image = self.axes.imshow(
            np.zeros((2, 2)), cmap="gray", origin="lower", aspect="auto", animated=True, interpolation="nearest"
        )
        style: Dict[str, Any] = {"color": "#40E0FF", "linewidth": 0.7, "alpha": 0.7, "animated": True}
        self.lines = (self.axes.axvline(0, **style), self.axes.axhline(0, **style))
        self.text = self.axes.text(
            0.01, 0.99, "", transform=self.axes.transAxes, color="white", va="top", fontsize=9, animated=True
        )
        self.text.set_path_effects(OUTLINE)
        (self.lasso,) = self.axes.plot([], [], color="white", linewidth=1.2, animated=True)
        self.furniture: List[Artist] = [self.lasso]
        # What is drawn, kept in two layers: the image, and the image with the circles at this position along the axis.
        self.pixels: Any = None
        self.circled: Any = None
        self.at = -1

    def circles(self, session: TomogramSession) -> Tuple[np.ndarray, np.ndarray]:
        """Rows of the places that this slice cuts, and the radii (voxels) of the circles in which it does."""
        rows = np.flatnonzero(session.visible())
        radii = session.radii_vox(rows)
        away = np.abs(session.xyz[rows, self.along] - session.cursor[self.along])
        cut = away < radii
        return rows[cut], np.sqrt(radii[cut] ** 2 - away[cut] ** 2)


class SlicesPanel:
    """Draws into `figure`, answers its mouse, and follows the session.

    Parameters
    ----------
    figure : Figure
        With an Agg canvas of any window system, or of none.
    session : TomogramSession
    later : function, optional
        Is given a function to call soon, once, from the thread that draws: the window's way to draw several changes
        together. Slices are then read beside the drawing. Without it everything is read and drawn at once.
    styles : function
        Says of the session and some of its rows how their circles are drawn.
    """

    def __init__(
        self,
        figure: Figure,
        session: TomogramSession,
        later: Optional[Callable[[Callable[[], None]], None]] = None,
        styles: Callable[[Any, np.ndarray], Styles] = pick_styles,
    ) -> None:
        self.figure, self.session, self._styles = figure, session, styles
        self.thickness, self.smoothing, self.contrast, self.brightness = 5, 1, 1.0, 0.0
        self.hovered: Optional[int] = None
        """The axis along which the orientation under the mouse looks."""
        self._zoom = 1.0
        self._later = later
        self._reader = None if later is None else LatestOnly()
        self._unread: Set[int] = set()
        figure.set_facecolor(BACKGROUND)
        self.views = [_View(figure, "xy", 2, 0, 1), _View(figure, "yz", 0, 2, 1), _View(figure, "xz", 1, 0, 2)]
        self._scale_bar = ScaleBar(self.views[0].axes)
        self.views[0].furniture += self._scale_bar.artists
        self._pan_from: Optional[Tuple[_View, float, float]] = None
        self._lasso: Optional[Tuple[_View, Lasso]] = None
        self._drags = False
        for name, answer in [
            ("draw_event", self._drawn),
            ("resize_event", lambda _: self._place()),
            ("scroll_event", self._scrolled),
            ("button_press_event", self._pressed),
            ("button_release_event", self._released),
            ("motion_notify_event", self._moved),
            ("figure_leave_event", self._left),
        ]:
            figure.canvas.mpl_connect(name, answer)
        session.listeners.append(self._heard)
        self._open()

    # ------------------------------ what is shown ------------------------------
    def set_appearance(self, **values: Any) -> None:
        """Change thickness (planes), smoothing, contrast (1 is the 1st to 99th percentile) or brightness (0 the middle)."""
        averaged = (self.thickness, self.smoothing)
        for name, value in values.items():
            setattr(self, name, value)
        if averaged != (self.thickness, self.smoothing):
            self._grey = grey_range(self._volume, self.thickness, self.smoothing)
            self._unread = {0, 1, 2}
        self._set_grey()
        for view in self.views:
            view.pixels = None
        self._soon()

    def zoom(self, factor: float, centre: Optional[np.ndarray] = None) -> None:
        """Magnify around a place (x, y, z), the cross-hair by default; never smaller than the whole."""
        self._zoom = float(np.clip(self._zoom * factor, 1.0, 40.0))
        self._centre = np.array(self.session.cursor if centre is None else centre, dtype=float)
        self._limits()

    def close(self) -> None:
        """Stop reading; the session lives on."""
        self.session.listeners.remove(self._heard)
        if self._reader is not None:
            self._reader.close()

    # ------------------------------ following the session ------------------------------
    def _heard(self, what: str) -> None:
        if what != "cursor":
            for view in self.views:
                view.circled = None
        if what == "tomogram":
            self._open()
        elif what == "cursor":
            self._unread |= {view.along for view in self.views if self._shown[view.along] != self._position(view.along)}
            if self._zoom > 1 and (np.abs(self.session.cursor - self._centre) > self._half).any():
                self._centre = self.session.cursor.astype(float)
                self._limits()
        self._soon()

    def _open(self) -> None:
        """Begin with the current tomogram: its levels, all of it in view."""
        session = self.session
        self._problem = ""
        try:
            self._volume = session.tomograms[session.current].open()
        except Exception as error:  # whatever the reader of this format raises: the other tomograms can be shown
            self._problem = f"\ncannot be read: {error}"
            self._volume = np.broadcast_to(np.float32(0), session.tomograms[session.current].shape)
        self._grey = grey_range(self._volume, self.thickness, self.smoothing)
        self._shown: List[Optional[int]] = [None, None, None]
        self._size = np.array(self._volume.shape[::-1], dtype=float)
        for view in self.views:
            view.image.set_extent((-0.5, self._size[view.across] - 0.5, -0.5, self._size[view.up] - 0.5))
            view.image.set_data(np.full((2, 2), self._grey[0]))
        self._set_grey()
        self._unread = {0, 1, 2}
        self._zoom, self._centre = 1.0, self._size / 2
        self._place()

    def _position(self, along: int) -> int:
        return int(self.session.cursor[along])

    def _set_grey(self) -> None:
        low, high = self._grey
        middle, half = (low + high) / 2, (high - low) / 2
        middle, half = middle - self.brightness * half, half / self.contrast
        for view in self.views:
            view.image.set_clim(middle - half, middle + half)

    def _set_image(self, along: int, image: np.ndarray) -> None:
        view = next(view for view in self.views if view.along == along)
        view.image.set_data(image)
        view.pixels = None

    # ------------------------------ drawing ------------------------------
    def _place(self) -> None:
        """Give each orientation the part of the figure that makes all voxels equally large."""
        width, height = self.figure.get_size_inches() * self.figure.dpi
        x, y, z = self._size
        scale = max(min((width - 3 * GAP_PIXELS) / (x + z), (height - 3 * GAP_PIXELS) / (y + z)), 1e-3)
        left, top = GAP_PIXELS, height - GAP_PIXELS - y * scale
        right, bottom = left + x * scale + GAP_PIXELS, top - GAP_PIXELS - z * scale
        for view, (a, b) in zip(self.views, [(left, top), (right, top), (left, bottom)]):
            w, h = self._size[view.across] * scale, self._size[view.up] * scale
            view.axes.set_position((a / width, b / height, w / width, h / height))
        self._limits()

    def _limits(self) -> None:
        """Show what zoom and centre say, within the volume."""
        self._half = self._size / self._zoom / 2
        middle = np.clip(self._centre, self._half - 0.5, self._size - 0.5 - self._half)
        self._centre = middle
        for view in self.views:
            view.axes.set_xlim(*(middle[view.across] + self._half[view.across] * np.array([-1, 1])))
            view.axes.set_ylim(*(middle[view.up] + self._half[view.up] * np.array([-1, 1])))
            view.pixels = None
        self._scale_bar.place(self.session.tomograms[self.session.current].voxel_size_A)
        self.figure.canvas.draw_idle()

    def _soon(self) -> None:
        if self._later is None:
            self._update()
        else:
            self._later(self._update)

    def _update(self) -> None:
        """Ask for the slices that have changed, and draw what there is."""
        self._read()
        for view in self.views:
            self._paint(view)
            self.figure.canvas.blit(view.axes.bbox)

    def _read(self) -> None:
        for along in self._unread:
            self._shown[along] = position = self._position(along)
            job = partial(self._slab, self.session.current, self._volume, along, position)
            if self._reader is None:
                self._set_image(along, job()[1])
            else:
                self._reader.ask(along, job)
        if self._unread and self._later is not None:
            self._later(self._fetch)
        self._unread = set()

    def _fetch(self) -> None:
        """Draw the slices that have been read meanwhile, and come again for the others."""
        if self._reader is None or self._later is None:
            return
        if self._reader.busy:
            self._later(self._fetch)
        answers = self._reader.answers()
        for along, (tomogram, image) in answers.items():
            if tomogram == self.session.current:  # else it comes too late
                self._set_image(along, image)
        if answers:
            self._later(self._update)

    def _slab(self, tomogram: int, volume: np.ndarray, along: int, position: int) -> Tuple[int, np.ndarray]:
        return tomogram, slab(volume, along, position, self.thickness, self.smoothing)

    def _drawn(self, _: Any) -> None:
        """After the canvas was drawn anew (first, resized, zoomed): all that it holds of us."""
        self._read()
        for view in self.views:
            view.pixels = None
            self._paint(view)

    def _paint(self, view: _View) -> None:
        canvas: Any = self.figure.canvas
        axes = view.axes
        if not hasattr(canvas, "renderer"):
            return  # nothing has been drawn yet: draw_event will come
        cursor = self.session.cursor
        if view.pixels is None:
            axes.draw_artist(axes.patch)
            axes.draw_artist(view.image)
            view.pixels, view.circled = canvas.copy_from_bbox(axes.bbox), None
        if view.circled is None or view.at != cursor[view.along]:
            canvas.restore_region(view.pixels)
            for circles in self._collections(view):
                axes.draw_artist(circles)
            view.circled, view.at = canvas.copy_from_bbox(axes.bbox), int(cursor[view.along])
        else:
            canvas.restore_region(view.circled)
        view.lines[0].set_xdata([cursor[view.across]] * 2)
        view.lines[1].set_ydata([cursor[view.up]] * 2)
        view.text.set_text(f"{view.name}  {'xyz'[view.along]} = {cursor[view.along]}{self._problem}")
        for artist in (*view.lines, view.text, *view.furniture):
            axes.draw_artist(artist)

    def _collections(self, view: _View) -> List[EllipseCollection]:
        """Circles in their styles, and white ones around those selected."""
        session = self.session
        rows, radii = view.circles(session)
        if not len(rows):
            return []
        styles = [(*style, 0.0) for style in self._styles(session, rows)]
        styles.append((session.selection[rows], "white", 2.6, "-", 1.0))  # around the place's own circle
        made = []
        for chosen, colour, width, line, margin in styles:
            if not chosen.any():
                continue
            sides = 2 * (radii[chosen] + margin)
            centres = session.xyz[rows[chosen]][:, [view.across, view.up]]
            circles = EllipseCollection(
                sides,
                sides,
                np.zeros(len(sides)),
                units="xy",
                offsets=centres,
                offset_transform=view.axes.transData,
                facecolors="none",
                edgecolors=colour,
                linewidths=width,
                linestyles=line,
                path_effects=[withStroke(linewidth=width + 2, foreground="black")] if margin else None,
            )
            circles.axes = view.axes
            circles.set_figure(self.figure)
            circles.set_clip_path(view.axes.patch)
            made.append(circles)
        return made

    # ------------------------------ mouse ------------------------------
    def pick_at(self, along: int, across: float, up: float) -> Optional[int]:
        """The place whose circle in this orientation holds a place, the one with the nearest middle; None without."""
        view = next(view for view in self.views if view.along == along)
        rows, radii = view.circles(self.session)
        middle = self.session.xyz[rows][:, [view.across, view.up]]
        away = np.hypot(*(middle - [across, up]).T)
        inside = np.flatnonzero(away <= np.maximum(radii, 2.0))
        return int(rows[inside[away[inside].argmin()]]) if len(inside) else None

    def scroll(self, planes: int, along: Optional[int] = None) -> None:
        """Go through the slices, of the orientation under the mouse by default, else of xy."""
        axis = along if along is not None else 2 if self.hovered is None else self.hovered
        place = self.session.cursor.copy()
        place[axis] += planes
        self.session.move_cursor(place)

    def _view_at(self, event: Any) -> Optional[_View]:
        return next((view for view in self.views if event.inaxes is view.axes), None)

    def _place_of(self, view: _View, event: Any) -> np.ndarray:
        place = self.session.cursor.astype(float)
        place[view.across], place[view.up] = event.xdata, event.ydata
        return place

    def _scrolled(self, event: Any) -> None:
        view = self._view_at(event)
        if view is not None and held(event, "control"):
            self.zoom(1.25**event.step, self._place_of(view, event))
        elif view is not None:
            self.scroll(int(event.step) * (10 if held(event, "shift") else 1), view.along)

    def _pressed(self, event: Any) -> None:
        view = self._view_at(event)
        if view is None:
            return
        row = self.pick_at(view.along, event.xdata, event.ydata)
        if event.button == 2:
            self._pan_from = (view, event.xdata, event.ydata)
        elif event.button == 3:
            if row is not None:
                self.session.toggle(row)
        elif held(event, "shift"):
            self._lasso = (view, Lasso(event.xdata, event.ydata))
        elif row is not None:
            self.session.go_to(row)
        else:
            self._drags = True
            self.session.leave()
            self.session.move_cursor(self._place_of(view, event))

    def _moved(self, event: Any) -> None:
        view = self._view_at(event)
        self.hovered = None if view is None else view.along
        if self._lasso is not None:
            drawn, lasso = self._lasso
            lasso.go_on(event, drawn.axes)
            drawn.lasso.set_data(*lasso.outline())
            self._soon()
        elif view is None:
            return
        elif self._pan_from is not None and self._pan_from[0] is view:
            self._centre[view.across] += self._pan_from[1] - event.xdata
            self._centre[view.up] += self._pan_from[2] - event.ydata
            self._limits()
        elif self._drags:
            self.session.move_cursor(self._place_of(view, event))

    def _released(self, event: Any) -> None:
        self._pan_from, self._drags = None, False
        if self._lasso is None:
            return
        (view, lasso), self._lasso = self._lasso, None
        view.lasso.set_data([], [])
        rows, _ = view.circles(self.session)
        if lasso.is_click:
            row = self.pick_at(view.along, *lasso.start)
            chosen = np.array([] if row is None else [row], dtype=int)
        else:
            chosen = rows[lasso.holds(self.session.xyz[rows][:, [view.across, view.up]])]
        self.session.select(chosen, "add")

    def _left(self, _: Any) -> None:
        self.hovered = None
