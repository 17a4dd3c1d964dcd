"""Tk controls of the picking window: the list of targets, sliders with their numbers, and what draws in time."""

import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np

from .colours import target_colour
from .session import PicksSession

SHOWN, HIDDEN = "☑", "☐"


FRAME_MS = 25


class Soon:
    """Calls functions once within the next frame, however often they were asked for until then.

    A problem with a file (`OSError`, `ValueError`) goes to `failed`.
    """

    def __init__(self, root: Any, failed: Callable[[Exception], None]) -> None:
        self._root, self._failed = root, failed
        self._jobs: Dict[Callable[[], None], str] = {}

    def __call__(self, action: Callable[[], None]) -> None:
        if action not in self._jobs:
            self._jobs[action] = self._root.after(FRAME_MS, self._call, action)

    def close(self) -> None:
        """Forget what was asked for."""
        for job in self._jobs.values():
            self._root.after_cancel(job)
        self._jobs.clear()

    def _call(self, action: Callable[[], None]) -> None:
        del self._jobs[action]
        try:
            action()
        except (OSError, ValueError) as error:
            self._failed(error)


class NumberSlider(ttk.Frame):
    """A name, a slider and its number, which can also be typed; `moved` is called with what the user sets, `told` with a
    sentence where that is no number."""

    def __init__(
        self,
        parent: Any,
        name: str,
        moved: Callable[[float], None],
        released: Callable[[], None],
        digits: int = 3,
        told: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        super().__init__(parent)
        self._moved, self._digits, self._quiet = moved, digits, False
        self._name, self._told = name, told
        self.columnconfigure(1, weight=1)
        ttk.Label(self, text=name, width=13).grid(row=0, column=0, sticky="w")
        self.scale = ttk.Scale(self, command=self._slid)
        self.scale.grid(row=0, column=1, sticky="ew")
        self.scale.bind("<ButtonRelease-1>", lambda _: released())
        self.entry = ttk.Entry(self, width=11, justify="right")
        self.entry.grid(row=0, column=2, padx=(4, 0))
        for event in ("<Return>", "<KP_Enter>", "<FocusOut>"):
            self.entry.bind(event, self._typed)
        self.entry.bind("<FocusIn>", lambda _: self._select_all())
        self._shown = ""

    def show(self, value: float, low: float, high: float, several: Optional[Tuple[float, float]] = None) -> None:
        """Show a value within its range, or in place of its number the smallest and largest of `several` that it stands for;
        nothing is told to anyone."""
        self._quiet = True
        self.scale.configure(from_=low, to=max(high, low + 1e-9))
        self.scale.set(min(max(value, low), high))
        self._quiet = False
        self._write(self._formatted(value) if several is None else "{} – {}".format(*map(self._formatted, several)))
        self.scale.state(["disabled" if high <= low else "!disabled"])

    def _formatted(self, value: float) -> str:
        return f"{value:.{self._digits}f}"

    def _select_all(self) -> None:
        """So that what is typed next takes the place of the number."""
        self.entry.selection_range(0, tk.END)
        self.entry.icursor(tk.END)

    def _write(self, text: str) -> None:
        # Asked of Tk itself: tkinter's focus_get stumbles over the list of a combobox.
        being_typed = self.tk.call("focus") == str(self.entry) and self.entry.get() != self._shown
        self._shown = text
        if not being_typed:
            self._rewrite()

    def _rewrite(self) -> None:
        self.entry.delete(0, tk.END)
        self.entry.insert(0, self._shown)

    def _slid(self, text: str) -> None:
        if not self._quiet:
            self._rewrite()
            self._moved(float(text))

    def _typed(self, _: Any) -> None:
        text = self.entry.get()
        if text == self._shown:
            return
        try:
            value = float(text)
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            self.bell()
            self._told(f"{self._name}: '{text}' is no number; write one with a point, such as 0.5.")
            self._rewrite()
            return
        self._shown = text
        self._moved(value)


class AppearanceBar(ttk.Frame):
    """How the slices are drawn: averaging, smoothing, grey levels; `change` takes them by name."""

    def __init__(self, parent: Any, thickness: int, smoothing: int, change: Callable[..., None]) -> None:
        super().__init__(parent, padding=(6, 4))
        self._spin("planes averaged", thickness, 1, 51, lambda n: change(thickness=n))
        self._spin("smoothing", smoothing, 0, 9, lambda n: change(smoothing=n))
        self._slider("contrast", lambda value: change(contrast=2.0**value))  # a quarter to four times
        self._slider("brightness", lambda value: change(brightness=value))

    def _spin(self, name: str, value: int, low: int, high: int, change: Callable[[int], None]) -> None:
        ttk.Label(self, text=name).pack(side="left")
        box = ttk.Spinbox(self, from_=low, to=high, width=4)
        box.set(value)
        box.configure(state="readonly", command=lambda: change(int(box.get())))
        box.pack(side="left", padx=(2, 12))

    def _slider(self, name: str, change: Callable[[float], None]) -> None:
        ttk.Label(self, text=name).pack(side="left")
        scale = ttk.Scale(self, from_=-2.0, to=2.0, value=0.0, length=110, command=lambda text: change(float(text)))
        scale.pack(side="left", padx=(2, 12))


def with_scrollbar(parent: Any, kind: Callable[[Any], Any]) -> Tuple[ttk.Frame, Any]:
    """A list of a kind beside its scroll bar, in a frame that is to be placed."""
    frame = ttk.Frame(parent)
    rows = kind(frame)
    scroll = ttk.Scrollbar(frame, command=rows.yview)
    rows.configure(yscrollcommand=scroll.set)
    scroll.pack(side="right", fill="y")
    rows.pack(side="left", fill="x", expand=True)
    return frame, rows


class TargetList(ttk.Treeview):
    """The targets with their counts: a click on the box shows or hides one, a click on the name edits it."""

    def __init__(self, parent: Any, session: PicksSession) -> None:
        columns = ("shown", "here", "all")
        height = min(max(len(session.targets), 2), 8)
        super().__init__(parent, columns=columns, show="tree headings", height=height, selectmode="browse")
        self.session = session
        for column, title, width in [
            ("#0", "target", 150),
            ("shown", "", 26),
            ("here", "here", 90),
            ("all", "all", 90),
        ]:
            self.heading(column, text=title)
            self.column(column, width=width, stretch=column == "#0", anchor="w" if column == "#0" else "center")
        self._swatches = []
        for target, name in enumerate(session.targets):
            swatch = tk.PhotoImage(master=self, width=12, height=12)
            swatch.put(target_colour(target), to=(0, 0, 12, 12))
            self._swatches.append(swatch)  # Tk keeps none of it
            self.insert("", tk.END, iid=str(target), text=" " + (name or "picks"), image=swatch)
        self.bind("<Button-1>", self._clicked)
        self.bind("<<TreeviewSelect>>", self._selected)
        self.refresh()

    def refresh(self) -> None:
        """Write the counts and boxes anew."""
        here, everywhere = self.session.counts(self.session.current), self.session.counts()
        for target in range(len(self.session.targets)):
            box = SHOWN if self.session.shown[target] else HIDDEN
            counts = [f"{stay} of {number}" for stay, number in (here[target], everywhere[target])]
            self.item(str(target), values=(box, *counts))
        if self.selection() != (str(self.session.edited),):
            self.selection_set(str(self.session.edited))
            self.see(str(self.session.edited))

    def _clicked(self, event: Any) -> Any:
        row = self.identify_row(event.y)
        if row and self.identify_column(event.x) == "#1":
            self.session.show_target(int(row), not self.session.shown[int(row)])
            return "break"
        return None

    def _selected(self, _: Any) -> None:
        chosen = self.selection()
        if chosen and int(chosen[0]) != self.session.edited:
            self.session.edit_target(int(chosen[0]))
