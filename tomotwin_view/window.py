"""The picking window: slices, histogram and controls around one session, in Tk.

Whoever opens it says what saving means; the window calls that function and shows the sentence it gives back.
"""

import tkinter as tk
from functools import partial
from tkinter import filedialog, messagebox, ttk
from typing import Any, Callable, Optional

import numpy as np
from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg
from matplotlib.figure import Figure

from .controls import AppearanceBar, NumberSlider, Soon, TargetList
from .histogram import HistogramPanel
from .session import ACCEPTED, REJECTED, UNDECIDED, PicksSession
from .session_file import apply_session
from .slices import BACKGROUND, SlicesPanel

SHORTCUTS = """Mouse
  left click        select the pick there and bring the cross-hair to it; beside picks: move the cross-hair
  right click       reject the pick there, or take it back
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


class PicksWindow:
    """A window on a session.

    Parameters
    ----------
    session : PicksSession
        With at least one tomogram and one target.
    save : function
        Saves the session (asking where, if need be) and gives back a sentence to show, or None when the user thought
        better of it; an exception's text is shown.
    save_label : str
        What the button says.
    parent : Tk widget, optional
        Of the program that opens the window; without it the window is a program of its own, see `run`.
    """

    def __init__(
        self,
        session: PicksSession,
        save: Callable[[PicksSession], Optional[str]],
        save_label: str = "Save",
        title: str = "Picks",
        parent: Any = None,
    ) -> None:
        self.session, self._save = session, save
        self.root: Any = tk.Tk() if parent is None else tk.Toplevel(parent)
        self.root.title(title)
        width, height = self.root.winfo_screenwidth(), self.root.winfo_screenheight()
        self.root.geometry(f"{min(1320, width - 40)}x{min(860, height - 80)}")
        self.root.columnconfigure(0, weight=1)
        self.root.rowconfigure(1, weight=1)
        self._later = Soon(self.root, lambda error: self.say(f"The tomogram cannot be read: {error}"))

        self._build_bar()
        self.slices_canvas, self.slices = self._panel(self.root, (8, 8), SlicesPanel)
        self.slices_canvas.get_tk_widget().grid(row=1, column=0, sticky="nsew")
        side = ttk.Frame(self.root, padding=6)
        side.grid(row=1, column=1, rowspan=2, sticky="ns")
        self._build_targets(side)
        self._build_thresholds(side)
        self._build_buttons(side, save_label)
        appearance = AppearanceBar(self.root, self.slices.thickness, self.slices.smoothing, self.slices.set_appearance)
        appearance.grid(row=2, column=0, sticky="ew")
        self.status = ttk.Label(self.root, anchor="w", padding=(6, 2))
        self.status.grid(row=3, column=0, columnspan=2, sticky="ew")

        self._bind_keys()
        self.root.protocol("WM_DELETE_WINDOW", self.close)
        session.listeners.append(self._heard)
        self._refresh_controls()
        self.say("F1 lists mouse and keys.")

    def run(self) -> None:
        """Stay until the window is closed."""
        self.root.mainloop()

    def say(self, sentence: str) -> None:
        """Show a sentence at the foot of the window."""
        self.status.configure(text=sentence)

    def save(self) -> None:
        try:
            sentence = self._save(self.session)
        except Exception as error:
            messagebox.showerror("Not saved", str(error), parent=self.root)
            return
        if sentence is not None:
            self.session.changed = False
            self.say(sentence)

    def load(self, path: str = "") -> None:
        """Take over the thresholds and decisions of a saved session; without a path the user is asked."""
        types = [("sessions", "*.star"), ("all files", "*")]
        path = path or filedialog.askopenfilename(parent=self.root, title="Saved session", filetypes=types)
        if not path:
            return
        try:
            applied = apply_session(path, self.session)
        except (OSError, ValueError) as error:
            messagebox.showerror("Not loaded", str(error), parent=self.root)
            return
        lost = f", {applied.without_pick} found no candidate any more" if applied.without_pick else ""
        self.say(f"Thresholds and {applied.decisions} decisions by hand were taken over{lost}.")

    def close(self) -> None:
        """Close the window; what is not saved is asked about."""
        if self.session.changed:
            question = "Thresholds or decisions have changed since the last save. Save before closing?"
            answer = messagebox.askyesnocancel("Close", question, parent=self.root)
            if answer is None:
                return
            if answer:
                self.save()
                if self.session.changed:
                    return
        self.destroy()

    def destroy(self) -> None:
        """Close the window without a question."""
        self.session.listeners.remove(self._heard)
        self.slices.close()
        self.histogram.close()
        self._later.close()
        self.root.destroy()

    # ------------------------------ building ------------------------------
    def _panel(self, parent: Any, inches: Any, kind: Any) -> Any:
        figure = Figure(figsize=inches)
        canvas = FigureCanvasTkAgg(figure, master=parent)
        canvas.get_tk_widget().configure(background=BACKGROUND, highlightthickness=0)
        return canvas, kind(figure, self.session, later=self._later)

    def _build_bar(self) -> None:
        bar = ttk.Frame(self.root, padding=4)
        bar.grid(row=0, column=0, columnspan=2, sticky="ew")
        session = self.session
        ttk.Button(bar, text="◀ previous", command=lambda: self._turn(-1)).pack(side="left")
        names = [tomogram.name for tomogram in session.tomograms]
        self.chooser = ttk.Combobox(bar, values=names, state="readonly", width=max(len(name) for name in names) + 2)
        self.chooser.pack(side="left", padx=4)
        self.chooser.bind("<<ComboboxSelected>>", lambda _: session.show_tomogram(self.chooser.current()))
        ttk.Button(bar, text="next ▶", command=lambda: self._turn(1)).pack(side="left")
        self.counts = ttk.Label(bar, padding=(12, 0))
        self.counts.pack(side="left")
        ttk.Button(bar, text="mouse and keys", command=self._show_shortcuts).pack(side="right")

    def _build_targets(self, side: Any) -> None:
        self.targets = TargetList(side, self.session)
        self.targets.pack(fill="x")
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
        self.histogram_canvas, self.histogram = self._panel(side, (4.2, 2.9), HistogramPanel)
        self.histogram_canvas.get_tk_widget().pack(fill="x")

        def score(value: float) -> None:
            session.set_score_min(value, session.edited, self.histogram.tomogram)

        def size(low: Optional[float] = None, high: Optional[float] = None) -> None:
            present = session.size_range[session.edited]
            session.set_size_range(
                present[0] if low is None else low, present[1] if high is None else high, session.edited
            )

        self.score = NumberSlider(side, "lowest score", score, session.end_of_drag)
        self.smallest = NumberSlider(side, "smallest (Å)", lambda v: size(low=v), session.end_of_drag, digits=0)
        self.largest = NumberSlider(side, "largest (Å)", lambda v: size(high=v), session.end_of_drag, digits=0)
        for control in (self.score, self.smallest, self.largest):
            control.pack(fill="x", pady=1)
        self.fdr = NumberSlider(
            side,
            "expected FDR",
            lambda v: session.set_fdr(v, session.edited, self.histogram.tomogram),
            session.end_of_drag,
        )
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
        row = ttk.Frame(side)
        row.pack(fill="x", side="bottom")
        ttk.Button(row, text="close", command=self.close).pack(side="right")
        self.save_button = ttk.Button(row, text=save_label, command=self.save)
        self.save_button.pack(side="right", padx=4)
        ttk.Button(row, text="load session", command=self.load).pack(side="left")

    def _bind_keys(self) -> None:
        session, slices = self.session, self.slices
        keys = {
            "n": lambda: session.step(True),
            "b": lambda: session.step(False),
            "a": lambda: self._decide(ACCEPTED),
            "r": lambda: self._decide(REJECTED),
            "u": lambda: self._decide(UNDECIDED),
            "h": lambda: session.set_view(show_left_out=not session.show_left_out),
            "t": lambda: session.set_view(colour_by="score" if session.colour_by == "target" else "target"),
            "0": lambda: slices.zoom(0.0),
            "Up": lambda: slices.scroll(1),
            "Down": lambda: slices.scroll(-1),
            "Prior": lambda: slices.scroll(10),
            "Next": lambda: slices.scroll(-10),
            "bracketleft": lambda: self._turn(-1),
            "bracketright": lambda: self._turn(1),
            "plus": lambda: slices.zoom(1.25),
            "minus": lambda: slices.zoom(0.8),
            "F1": self._show_shortcuts,
        }
        for key, action in keys.items():
            self.root.bind(f"<KeyPress-{key}>", partial(self._pressed, action))
        for key, action in {"z": session.undo, "y": session.redo, "s": self.save}.items():
            self.root.bind(f"<Control-{key}>", partial(self._with_control, action))
        # A click on the pictures takes the keys away from a number that was being typed.
        for canvas in (self.slices_canvas, self.histogram_canvas):
            widget = canvas.get_tk_widget()
            widget.bind("<Button>", lambda event: event.widget.focus_set(), add="+")

    # ------------------------------ acting and following ------------------------------
    @staticmethod
    def _with_control(action: Callable[[], None], _: Any) -> None:
        action()

    @staticmethod
    def _pressed(action: Callable[[], None], event: Any) -> None:
        typing = isinstance(event.widget, (tk.Entry, ttk.Entry)) and event.keysym != "F1"
        control = event.state & 0x4
        if not typing and not control:
            action()

    def _turn(self, by: int) -> None:
        self.session.show_tomogram(self.session.current + by)

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

    def _show_shortcuts(self) -> None:
        window = tk.Toplevel(self.root)
        window.title("Mouse and keys")
        tk.Label(window, text=SHORTCUTS, justify="left", font="TkFixedFont", padx=14, pady=10).pack()
        window.bind("<Escape>", lambda _: window.destroy())
        window.transient(self.root)

    def _heard(self, what: str) -> None:
        if what != "cursor":
            self._later(self._refresh_controls)

    def _refresh_controls(self) -> None:
        """Write thresholds, counts and choices as the session has them."""
        session, target = self.session, self.session.edited
        self.targets.refresh()
        self.chooser.current(session.current)
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
        self._show_range(self.score, self.histogram.threshold(), scores)
        self._show_range(self.smallest, low, sizes)
        self._show_range(self.largest, high, sizes)
        fdr = session.expected_fdr(target, self.histogram.tomogram)
        self.fdr.show(fdr if np.isfinite(fdr) else 0.0, 0.0, 1.0)
        self.picked.configure(text=self._selection_in_words())

    @staticmethod
    def _show_range(slider: NumberSlider, value: float, values: np.ndarray) -> None:
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
        slider.show(float(np.clip(value, low, high)), low, high)

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
