"""What a window on clusters shows of them beside UMAP, slices and gallery: the list, and the facts in words."""

import tkinter as tk
from functools import partial
from tkinter import ttk
from typing import Any, Dict, List, Tuple

import numpy as np

from .cluster_session import ClustersSession
from .colours import target_colour
from .controls import HIDDEN, SHOWN
from .gallery import MOST_GALLERIES

LONGEST = 10


class ClusterList(ttk.Treeview):
    """The clusters with their counts: a click on the box picks or discards one, a click on the name takes it to hand; with
    Ctrl several are chosen, to be merged. A click on a column's head sorts by it, another one the other way round."""

    def __init__(self, parent: Any, session: ClustersSession) -> None:
        columns = ("picked", "kind", "here", "all")
        super().__init__(parent, columns=columns, show="tree headings", height=LONGEST, selectmode="extended")
        self.session = session
        self._titles: Dict[str, str] = {}
        self._sorted: Tuple[str, bool] = ("", False)
        for column, title, width in [
            ("#0", "cluster", 160),
            ("picked", "pick", 40),
            ("kind", "kind", 92),
            ("here", "here", 50),
            ("all", "all", 60),
        ]:
            self.heading(column, text=title, command=partial(self.sort_by, column))
            self._titles[column] = title
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
        self._arrange()
        if listed and session.at_hand not in self.chosen():
            self.selection_set(str(session.at_hand))
            self.see(str(session.at_hand))

    def sort_by(self, column: str) -> None:
        """Sort by a column: names and kinds by the alphabet, numbers and what is picked with the most first; a second time the
        other way round, a third time as the session has them."""
        before, turned = self._sorted
        self._sorted = (column, False) if column != before else ("", False) if turned else (column, True)
        for one, title in self._titles.items():
            arrow = "" if one != self._sorted[0] else " ▲" if self._sorted[1] else " ▼"
            self.heading(one, text=title + arrow)
        self._arrange()

    def _arrange(self) -> None:
        column, turned = self._sorted
        rows = sorted(self.get_children(), key=int)
        if column == "#0":
            rows.sort(key=lambda row: self.item(row, "text").lower(), reverse=turned)
        elif column == "kind":
            rows.sort(key=lambda row: str(self.set(row, column)), reverse=turned)
        elif column == "picked":
            rows.sort(key=lambda row: self.set(row, column) != SHOWN, reverse=turned)
        elif column:
            rows.sort(key=lambda row: -int(self.set(row, column)), reverse=turned)
        if tuple(rows) != tuple(self.get_children()):
            for place, row in enumerate(rows):
                self.move(row, "", place)

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
