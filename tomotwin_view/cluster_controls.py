"""What a window on clusters shows of them beside UMAP and slices: the list, the facts in words, the gallery."""

import os
import tkinter as tk
from tkinter import ttk
from typing import Any, Callable, List, Optional

import matplotlib.image
import numpy as np
from matplotlib.figure import Figure

from .cluster_session import ClustersSession
from .colours import target_colour
from .controls import HIDDEN, SHOWN

MOST_GALLERIES = 3
LONGEST = 10


class ClusterList(ttk.Treeview):
    """The clusters with their counts: a click on the box picks or discards one, a click on the name takes it to hand; with
    Ctrl several are chosen, to be merged."""

    def __init__(self, parent: Any, session: ClustersSession) -> None:
        columns = ("picked", "kind", "here", "all")
        super().__init__(parent, columns=columns, show="tree headings", height=LONGEST, selectmode="extended")
        self.session = session
        for column, title, width in [
            ("#0", "cluster", 160),
            ("picked", "pick", 40),
            ("kind", "kind", 92),
            ("here", "here", 50),
            ("all", "all", 60),
        ]:
            self.heading(column, text=title)
            self.column(column, width=width, stretch=column == "#0", anchor="w" if column == "#0" else "center")
        self._swatches: List[Any] = []
        self._listed: List[Any] = []
        self.bind("<Button-1>", self._clicked)
        self.bind("<<TreeviewSelect>>", self._selected)
        self.refresh()

    def chosen(self) -> List[int]:
        """Positions of the entries that are chosen in the list."""
        return [int(row) for row in self.selection()]

    def refresh(self) -> None:
        """Write the list anew, where it has other entries, and its counts and boxes."""
        session = self.session
        listed = [(entry.name, entry.colour) for entry in session.entries]
        if listed != self._listed:
            self.delete(*self.get_children())
            self._swatches = []
            for number, (name, colour) in enumerate(listed):
                swatch = tk.PhotoImage(master=self, width=12, height=12)
                swatch.put(target_colour(colour), to=(0, 0, 12, 12))
                self._swatches.append(swatch)  # Tk keeps none of it
                self.insert("", tk.END, iid=str(number), text=" " + name, image=swatch)
            self._listed = listed
        for number, (here, everywhere) in enumerate(session.counts()):
            box = SHOWN if session.entries[number].picked else HIDDEN
            self.item(str(number), values=(box, session.kind(number), here, everywhere))
        if listed and session.at_hand not in self.chosen():
            self.selection_set(str(session.at_hand))
            self.see(str(session.at_hand))

    def _clicked(self, event: Any) -> Any:
        row = self.identify_row(event.y)
        if row and self.identify_column(event.x) == "#1":
            self.session.set_picked([int(row)], not self.session.entries[int(row)].picked)
            return "break"
        return None

    def _selected(self, _: Any) -> None:
        chosen = self.chosen()
        if chosen and self.session.at_hand not in chosen:
            self.session.look_at(chosen[0])


class GalleryPanel:
    """Draws the galleries of the cluster at hand, those of all proposals that it is made of, one under the other.

    `folder` is that of `tomotwin cluster`; other arguments as `SlicesPanel`.
    """

    def __init__(
        self,
        figure: Figure,
        session: ClustersSession,
        later: Optional[Callable[[Callable[[], None]], None]] = None,
        folder: str = "",
    ) -> None:
        self.figure, self.session, self._folder, self._later = figure, session, folder, later
        self.paths: Optional[List[str]] = None
        """The pictures that are shown."""
        figure.set_facecolor("white")
        session.listeners.append(self._heard)
        self.refresh()

    def refresh(self) -> None:
        """Draw the pictures, if they are others than before."""
        session = self.session
        sources = session.entries[session.at_hand].sources if session.entries else ()
        named = [p.facts.get("gallery") for p in session.proposals if p.name in sources]
        paths = [os.path.join(self._folder, name) for name in named if name][:MOST_GALLERIES]
        if paths == self.paths:
            return
        self.paths = paths
        self.figure.clear()
        words = "" if paths else "no gallery: `tomotwin cluster --selection` makes one of what is saved"
        for number, path in enumerate(paths):
            axes = self.figure.add_axes((0, 1 - (number + 1) / len(paths), 1, 1 / len(paths)))
            axes.set_axis_off()
            try:
                axes.imshow(matplotlib.image.imread(path), cmap="gray", interpolation="antialiased")
            except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: the PNG reader's word for a broken one
                words = f"{os.path.basename(path)} cannot be shown:\n{error}"
        self.figure.text(0.5, 0.5, words, ha="center", va="center", fontsize=8, wrap=True)
        self.figure.canvas.draw_idle()

    def close(self) -> None:
        self.session.listeners.remove(self._heard)

    def _heard(self, what: str) -> None:
        if what in ("filter", "view"):
            if self._later is None:
                self.refresh()
            else:
                self._later(self.refresh)


def facts_in_words(session: ClustersSession) -> str:
    """What is known about the cluster at hand, a line each."""
    if not session.entries:
        return session.verdict
    number = session.at_hand
    entry, rows = session.entries[number], session.members(number)
    counts = np.bincount(session.tomogram[rows], minlength=len(session.tomograms))
    where = ", ".join(f"{t.name} {count}" for t, count in zip(session.tomograms, counts) if count)
    lines = [f"{entry.name}: {session.kind(number)}, " + ("picked" if entry.picked else "not picked")]
    lines.append(f"{rows.sum()} members: {_shortened(where)}")
    same = session.is_as_proposed(number)
    proposals = [proposal for proposal in session.proposals if proposal.name in entry.sources]
    if not same:
        sizes = session.diameter_A[rows]
        size = f", median diameter {np.median(sizes):.0f} Å" if np.isfinite(sizes).any() else ""
        lines.append((f"made of {', '.join(entry.sources)}" if entry.sources else "selected by hand") + size)
    for proposal in proposals[:MOST_GALLERIES]:
        front = "" if same else f"{proposal.name}: "
        lines += [front + line for line in _facts(proposal.facts) if line]
    return "\n".join(lines)


def _facts(facts: Any) -> List[str]:
    numbers = [
        _number(facts, "certainty", "certainty {:.2f}"),
        _number(facts, "diameter_A", "about {:.0f} Å wide"),
        _number(facts, "density_per_um3", "{:.0f} per µm³"),
        _number(facts, "compactness", "compactness {:.2f}"),
    ]
    nearest = ", ".join(f"{item['name']} {item['score']:.2f}" for item in facts.get("nearest") or [])
    return [
        ", ".join(words for words in numbers if words),
        f"most like: {nearest}" if nearest else "",
        str(facts.get("why") or ""),
    ]


def _number(facts: Any, key: str, words: str) -> str:
    value = facts.get(key)
    return words.format(value) if isinstance(value, (int, float)) and np.isfinite(value) else ""


def _shortened(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[:most].rsplit(", ", 1)[0] + " ..."
