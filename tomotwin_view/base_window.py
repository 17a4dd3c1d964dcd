"""What every window has: tomograms to turn over and their slices, save, load, undo, keys, a line to say things in.

A window puts its own panels beside the slices and its own controls into `side`; see window.py and clusters_window.py.
Whoever opens one says what saving means; the window calls that function and shows the sentence it gives back.
"""

import tkinter as tk
from functools import partial
from tkinter import filedialog, messagebox, ttk
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg
from matplotlib.figure import Figure

from .colours import Styles
from .controls import AppearanceBar, Soon
from .session_base import TomogramSession
from .slices import BACKGROUND, SlicesPanel


class SessionWindow:
    """A window on a session.

    Parameters
    ----------
    session : TomogramSession
    save : function
        Saves the session (asking where, if need be) and gives back a sentence to show, or None when the user thought
        better of it; an exception's text is shown.
    title : str
    parent : Tk widget, optional
        Of the program that opens the window; without it the window is a program of its own, see `run`.
    """

    SHORTCUTS = ""
    """What mouse and keys do, shown on demand."""
    UNSAVED = "Something has changed since the last save. Save before closing?"
    FILES: List[Tuple[str, str]] = []
    """Kinds of files that `load` offers."""
    SIZE = (1320, 860)

    def __init__(self, session: Any, save: Callable[[Any], Optional[str]], title: str, parent: Any = None) -> None:
        self.session, self._save = session, save
        self.root: Any = tk.Tk() if parent is None else tk.Toplevel(parent)
        self.root.title(title)
        width, height = self.root.winfo_screenwidth(), self.root.winfo_screenheight()
        self.root.geometry(f"{min(self.SIZE[0], width - 40)}x{min(self.SIZE[1], height - 80)}")
        self.root.columnconfigure(0, weight=1)
        self.root.rowconfigure(1, weight=1)
        self._later = Soon(self.root, lambda error: self.say(f"The tomogram cannot be read: {error}"))
        self.slices: Optional[SlicesPanel] = None
        self._canvases: List[Any] = []

        self._build_bar()
        self.side = ttk.Frame(self.root, padding=6)
        self.side.grid(row=1, column=1, rowspan=2, sticky="ns")
        self.status = ttk.Label(self.root, anchor="w", padding=(6, 2))
        self.status.grid(row=3, column=0, columnspan=2, sticky="ew")
        # A sentence that is longer than the window goes on in the next line.
        self.status.bind("<Configure>", lambda event: self.status.configure(wraplength=max(event.width - 12, 100)))

    # ------------------------------ what a window says ------------------------------
    def refresh_controls(self) -> None:
        """Write everything in the controls as the session has it."""
        names = [tomogram.name for tomogram in self.session.tomograms]
        self.chooser.set(names[self.session.current])

    def load_file(self, path: str) -> str:
        """Take over a saved file; returns a sentence about it."""
        raise NotImplementedError

    def keys(self) -> Dict[str, Callable[[], None]]:
        """What keys do that not all windows have."""
        return {}

    # ------------------------------ acting ------------------------------
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
        """Take over what was decided in a saved session; without a path the user is asked."""
        types = [*self.FILES, ("all files", "*")]
        path = path or filedialog.askopenfilename(parent=self.root, title="Saved session", filetypes=types)
        if not path:
            return
        try:
            sentence = self.load_file(path)
        except (OSError, ValueError) as error:
            messagebox.showerror("Not loaded", str(error), parent=self.root)
            return
        self.say(sentence)

    def close(self) -> None:
        """Close the window; what is not saved is asked about."""
        if self.session.changed:
            answer = messagebox.askyesnocancel("Close", self.UNSAVED, parent=self.root)
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
        if self.slices is not None:
            self.slices.close()
        self._later.close()
        self.root.destroy()

    # ------------------------------ building ------------------------------
    def add_panel(self, parent: Any, inches: Any, kind: Callable[..., Any]) -> Any:
        """The canvas and the panel of a kind, drawn into a figure of this size in `parent`."""
        figure = Figure(figsize=inches)
        canvas = FigureCanvasTkAgg(figure, master=parent)
        canvas.get_tk_widget().configure(background=BACKGROUND, highlightthickness=0)
        self._canvases.append(canvas)
        return canvas, kind(figure, self.session, later=self._later)

    def add_slices(self, parent: Any, styles: Callable[[Any, np.ndarray], Styles]) -> Any:
        """The slices in `parent`, and at the foot of the window how they are drawn; returns what is to be placed."""
        self.slices_canvas, self.slices = self.add_panel(parent, (8, 8), partial(SlicesPanel, styles=styles))
        panel = self.slices
        appearance = AppearanceBar(self.root, panel.thickness, panel.smoothing, panel.set_appearance)
        appearance.grid(row=2, column=0, sticky="ew")
        return self.slices_canvas.get_tk_widget()

    def finish(self) -> None:
        """The last of building: keys, and following the session."""
        self._bind_keys()
        self.root.protocol("WM_DELETE_WINDOW", self.close)
        self.session.listeners.append(self._heard)
        self.refresh_controls()
        self.say("F1 lists mouse and keys.")

    def add_save_buttons(self, parent: Any, save_label: str) -> None:
        """Load, save and close, at the foot of `parent`."""
        row = ttk.Frame(parent)
        row.pack(fill="x", side="bottom", pady=(4, 0))
        ttk.Button(row, text="close", command=self.close).pack(side="right")
        self.save_button = ttk.Button(row, text=save_label, command=self.save)
        self.save_button.pack(side="right", padx=4)
        ttk.Button(row, text="load session", command=self.load).pack(side="left")

    def _build_bar(self) -> None:
        self.bar = ttk.Frame(self.root, padding=4)
        self.bar.grid(row=0, column=0, columnspan=2, sticky="ew")
        ttk.Button(self.bar, text="◀ previous", command=lambda: self._turn(-1)).pack(side="left")
        names = [tomogram.name for tomogram in self.session.tomograms]
        width = min(max(len(name) for name in names) + 2, 40)
        self.chooser = ttk.Combobox(self.bar, values=names, state="readonly", width=width)
        self.chooser.pack(side="left", padx=4)
        self.chooser.bind("<<ComboboxSelected>>", lambda _: self.session.show_tomogram(self.chooser.current()))
        ttk.Button(self.bar, text="next ▶", command=lambda: self._turn(1)).pack(side="left")
        self.counts = ttk.Label(self.bar, padding=(12, 0))
        self.counts.pack(side="left")
        ttk.Button(self.bar, text="mouse and keys", command=self._show_shortcuts).pack(side="right")

    def _bind_keys(self) -> None:
        session: TomogramSession = self.session
        keys: Dict[str, Callable[[], None]] = {
            "n": lambda: session.step(True),
            "b": lambda: session.step(False),
            "bracketleft": lambda: self._turn(-1),
            "bracketright": lambda: self._turn(1),
            "F1": self._show_shortcuts,
        }
        if self.slices is not None:
            slices = self.slices
            keys.update(
                {
                    "0": lambda: slices.zoom(0.0),
                    "Up": lambda: slices.scroll(1),
                    "Down": lambda: slices.scroll(-1),
                    "Prior": lambda: slices.scroll(10),
                    "Next": lambda: slices.scroll(-10),
                    "plus": lambda: slices.zoom(1.25),
                    "minus": lambda: slices.zoom(0.8),
                }
            )
        for key, action in {**keys, **self.keys()}.items():
            self.root.bind(f"<KeyPress-{key}>", partial(self._pressed, action))
        for key, action in {"z": session.undo, "y": session.redo, "s": self.save}.items():
            self.root.bind(f"<Control-{key}>", partial(self._with_control, action))
        # A click on the pictures takes the keys away from a number that was being typed.
        for canvas in self._canvases:
            widget = canvas.get_tk_widget()
            widget.bind("<Button>", lambda event: event.widget.focus_set(), add="+")

    # ------------------------------ following ------------------------------
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

    def _show_shortcuts(self) -> None:
        window = tk.Toplevel(self.root)
        window.title("Mouse and keys")
        tk.Label(window, text=self.SHORTCUTS, justify="left", font="TkFixedFont", padx=14, pady=10).pack()
        window.bind("<Escape>", lambda _: window.destroy())
        window.transient(self.root)

    def _heard(self, what: str) -> None:
        if what != "cursor":
            self._later(self.refresh_controls)
