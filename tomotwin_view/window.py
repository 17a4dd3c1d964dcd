"""The picking window: slices, histogram and controls around one session, in Tk."""

import tkinter as tk
from functools import partial
from tkinter import ttk
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np

from .base_window import SessionWindow
from .colours import pick_styles
from .controls import NumberSlider, TargetList, with_scrollbar
from .histogram import HistogramPanel
from .session import ACCEPTED, REJECTED, UNDECIDED, PicksSession
from .session_file import apply_session

SAME_THRESHOLD = 5e-4
"""Thresholds that differ by less look the same in three digits."""

SHORTCUTS = """Mouse
  left click        select the pick there and bring the cross-hair to it; beside picks: move the cross-hair
  right click       reject the pick there, or take it back
  Shift and left    select more picks: a click, or a line drawn around them
  wheel             go through the slices; with Shift ten at a time; with Ctrl magnify
  middle drag       move a magnified view

Keys
  n, b              next and previous pick, by falling score
  a, r, u           accept or reject the selected picks, or leave them to the thresholds again
  Up, Down          one slice on or back in the orientation under the mouse (Page Up and Page Down: ten)
  [ and ]           previous and next tomogram
  + and -           magnify, reduce;  0 shows the whole tomogram
  h                 show what the thresholds leave out, or hide it
  t                 colour by target or by score
  Ctrl+Z, Ctrl+Y    undo, redo
  Ctrl+S            save
  F1                this list"""


class PicksWindow(SessionWindow):
    """A window on a session of picks, with at least one target; parameters as `SessionWindow`.

    `save_label` is what the button says.
    """

    SHORTCUTS = SHORTCUTS
    UNSAVED = "Thresholds or decisions have changed since the last save. Save before closing?"
    FILES = [("sessions", "*.star")]

    def __init__(
        self,
        session: PicksSession,
        save: Callable[[PicksSession], Optional[str]],
        save_label: str = "Save",
        title: str = "Picks",
        parent: Any = None,
    ) -> None:
        super().__init__(session, save, title, parent)
        self.add_slices(self.root, pick_styles).grid(row=1, column=0, sticky="nsew")
        # Whatever is packed last gets the room that is left. So that is the histogram, and on a small screen no button is lost.
        self.below = ttk.Frame(self.side)
        self.below.pack(side="bottom", fill="x")
        self._build_targets(self.side)
        self._build_thresholds(self.below)
        self._build_buttons(self.below, save_label)
        self.histogram_canvas.get_tk_widget().pack(fill="both", expand=True)
        self.finish()

    def load_file(self, path: str) -> str:
        applied = apply_session(path, self.session)
        lost = f", {applied.without_pick} found no candidate any more" if applied.without_pick else ""
        return f"Thresholds and {applied.decisions} decisions by hand were taken over{lost}."

    def destroy(self) -> None:
        self.histogram.close()
        super().destroy()

    # ------------------------------ building ------------------------------
    def _build_targets(self, side: Any) -> None:
        frame, self.targets = with_scrollbar(side, partial(TargetList, session=self.session))
        frame.pack(fill="x")
        row = ttk.Frame(side)
        row.pack(fill="x", pady=(4, 6))
        ttk.Label(row, text="colour by").pack(side="left")
        self.colouring = tk.StringVar(row, self.session.colour_by)
        for choice in ("target", "score"):
            ttk.Radiobutton(
                row,
                text=choice,
                value=choice,
                variable=self.colouring,
                command=lambda: self.session.set_view(colour_by=self.colouring.get()),
            ).pack(side="left", padx=4)
        self.left_out = tk.BooleanVar(row, self.session.show_left_out)
        ttk.Checkbutton(
            row,
            text="show left out",
            variable=self.left_out,
            command=lambda: self.session.set_view(show_left_out=self.left_out.get()),
        ).pack(side="right")

    def _build_thresholds(self, side: Any) -> None:
        session = self.session
        self.histogram_canvas, self.histogram = self.add_panel(self.side, (4.2, 2.9), HistogramPanel)

        def score(value: float) -> None:
            session.set_score_min(value, session.edited, self.histogram.tomogram)

        def size(low: Optional[float] = None, high: Optional[float] = None) -> None:
            present = session.size_range[session.edited]
            session.set_size_range(
                present[0] if low is None else low, present[1] if high is None else high, session.edited
            )

        slider = partial(NumberSlider, side, released=session.end_of_drag, told=self.say)
        self.score = slider("lowest score", score)
        self.smallest = slider("smallest (Å)", lambda v: size(low=v), digits=0)
        self.largest = slider("largest (Å)", lambda v: size(high=v), digits=0)
        for control in (self.score, self.smallest, self.largest):
            control.pack(fill="x", pady=1)
        self.fdr = slider("expected FDR", lambda v: session.set_fdr(v, session.edited, self.histogram.tomogram))
        if np.isfinite(session.picks.fdr).any():
            self.fdr.pack(fill="x", pady=1)
        row = ttk.Frame(side)
        row.pack(fill="x", pady=(2, 6))
        self.alone = tk.BooleanVar(row, False)
        several = "!disabled" if len(session.tomograms) > 1 else "disabled"
        box = ttk.Checkbutton(row, text="this tomogram alone", variable=self.alone, command=self._scope_chosen)
        box.state([several])
        box.pack(side="left")
        self.log = tk.BooleanVar(row, self.histogram.log)
        ttk.Checkbutton(row, text="log counts", variable=self.log, command=self._scope_chosen).pack(side="right")

    def _build_buttons(self, side: Any, save_label: str) -> None:
        row = ttk.Frame(side)
        row.pack(fill="x", pady=2)
        for text, decision in (("accept", ACCEPTED), ("reject", REJECTED), ("clear", UNDECIDED)):
            ttk.Button(row, text=text, width=8, command=partial(self._decide, decision)).pack(side="left")
        self.undo = ttk.Button(row, text="undo", width=6, command=self.session.undo)
        self.undo.pack(side="left", padx=(12, 0))
        ttk.Button(row, text="redo", width=6, command=self.session.redo).pack(side="left")
        self.picked = ttk.Label(side, padding=(0, 4), wraplength=420)
        self.picked.pack(fill="x")
        self.add_save_buttons(side, save_label)

    def keys(self) -> Dict[str, Callable[[], None]]:
        session = self.session
        return {
            "a": lambda: self._decide(ACCEPTED),
            "r": lambda: self._decide(REJECTED),
            "u": lambda: self._decide(UNDECIDED),
            "h": lambda: session.set_view(show_left_out=not session.show_left_out),
            "t": lambda: session.set_view(colour_by="score" if session.colour_by == "target" else "target"),
        }

    # ------------------------------ acting and following ------------------------------
    def _decide(self, decision: int) -> None:
        rows = np.flatnonzero(self.session.selection)
        if len(rows):
            self.session.decide(rows, decision)
        else:
            self.say("Select a pick first: click on it, or press n.")

    def _scope_chosen(self) -> None:
        self.histogram.per_tomogram, self.histogram.log = self.alone.get(), self.log.get()
        self.session.end_of_drag()
        self.session.tell("view")

    def refresh_controls(self) -> None:
        super().refresh_controls()
        session, target = self.session, self.session.edited
        self.targets.refresh()
        self.colouring.set(session.colour_by)
        self.left_out.set(session.show_left_out)
        here, everywhere = session.counts(session.current).sum(axis=0), session.counts().sum(axis=0)
        of = f"tomogram {session.current + 1} of {len(session.tomograms)}"
        self.counts.configure(
            text=f"{of}: {here[0]} of {here[1]} candidates stay; in all {everywhere[0]} of {everywhere[1]}"
        )
        rows = session.rows(target)
        scores, sizes = session.picks.score[rows], session.picks.diameter_A[rows]
        low, high = session.size_range[target]
        self._show_range(self.score, self.histogram.threshold(), scores, self._thresholds())
        self._show_range(self.smallest, low, sizes)
        self._show_range(self.largest, high, sizes)
        fdr = session.expected_fdr(target, self.histogram.tomogram)
        self.fdr.show(fdr if np.isfinite(fdr) else 0.0, 0.0, 1.0)
        self.picked.configure(text=self._selection_in_words())

    def _thresholds(self) -> Optional[Tuple[float, float]]:
        """The lowest and highest threshold, where those of all tomograms are shown and they are not one and the same."""
        own = self.session.score_min[:, self.session.edited]
        own = own[np.isfinite(own)]
        if self.histogram.tomogram is not None or not len(own) or own.max() - own.min() < SAME_THRESHOLD:
            return None
        return float(own.min()), float(own.max())

    @staticmethod
    def _show_range(
        slider: NumberSlider, value: float, values: np.ndarray, several: Optional[Tuple[float, float]] = None
    ) -> None:
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
        slider.show(float(np.clip(value, low, high)), low, high, several)

    def _selection_in_words(self) -> str:
        session, rows = self.session, np.flatnonzero(self.session.selection)
        if len(rows) != 1:
            return f"{len(rows)} picks selected" if len(rows) else ""
        row, picks = rows[0], session.picks
        words = [session.targets[picks.target[row]] or "pick", f"score {picks.score[row]:.4f}"]
        if np.isfinite(picks.diameter_A[row]):
            words.append(f"{picks.diameter_A[row]:.0f} Å")
        words.append("at " + ", ".join(f"{value:.1f}" for value in picks.xyz[row]))
        state = {ACCEPTED: "accepted by hand", REJECTED: "rejected by hand"}.get(int(session.decisions[row]))
        words.append(state or ("stays" if session.accepted()[row] else "left out by the thresholds"))
        return ", ".join(words)
