"""What is decided in a window on clusters: which are picked, what they are called and what belongs to them. No window needed.

A session begins with the clusters that `tomotwin cluster` has proposed (`Proposal`), each an `Entry` of its own; those of
kind "species" are picked, the others (membrane, gold, ice ...) are listed. A person names entries, merges them, discards
them, makes new ones of what is selected, and moves single candidates. A candidate belongs to one entry or to none.

What comes out (`chosen`) refers to the proposals and to the candidates' ids, so that it can be saved, taken up again and
given to the engine (cluster_files.py).
"""

import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from .session_base import Tomogram, TomogramSession

SPECIES = "species"
NO_CLUSTER = "none"
"""Word of the table of candidates for what belongs to no cluster."""


class Candidates(NamedTuple):
    """Places that clusters are made of, one row each.

    ids : int (n,), the engine's. tomogram : int (n,), position in the session's list. xyz : (n, 3) voxels. diameter_A : (n,).
    proposal : int (n,), position in the list of proposals, -1 for none. probability : (n,), 0 to 1, of belonging to it.
    umap : (n, 2), place in the picture.
    """

    ids: np.ndarray
    tomogram: np.ndarray
    xyz: np.ndarray
    diameter_A: np.ndarray
    proposal: np.ndarray
    probability: np.ndarray
    umap: np.ndarray


class Proposal(NamedTuple):
    """A cluster as the engine proposed it; `facts` is its entry in clusters.json."""

    name: str
    kind: str
    facts: Dict[str, Any]


class Entry(NamedTuple):
    """A cluster as a person left it: out of which proposals, whether it is picked, the number of its colour."""

    name: str
    sources: Tuple[str, ...]
    picked: bool
    colour: int


class _State(NamedTuple):
    """What undo brings back."""

    entries: List[Entry]
    label: np.ndarray
    at_hand: int


class ClustersSession(TomogramSession):
    """Entries, and which candidate belongs to which.

    Parameters
    ----------
    tomograms : sequence
    candidates : Candidates
    proposals : sequence
        Best first.
    """

    def __init__(
        self, tomograms: Sequence[Tomogram], candidates: Candidates, proposals: Sequence[Proposal], verdict: str = ""
    ) -> None:
        super().__init__(tomograms, candidates.tomogram, candidates.xyz, candidates.diameter_A)
        self.candidates, self.proposals, self.verdict = candidates, list(proposals), verdict
        self.entries = [
            Entry(proposal.name, (proposal.name,), proposal.kind == SPECIES, number)
            for number, proposal in enumerate(self.proposals)
        ]
        self.label = candidates.proposal.astype(int)
        """(n,) position in `entries`, -1 for none."""
        self.at_hand = 0
        self.focus: Optional[int] = None
        """The candidate under the cross-hair that was gone to last."""
        self.this_tomogram_alone = False
        self.has_voxels = True
        """Whether at least one tomogram can be opened."""

    # ------------------------------ looking ------------------------------
    def members(self, entry: int) -> np.ndarray:
        """Boolean (n,): what belongs to an entry."""
        return self.label == entry

    def counts(self) -> np.ndarray:
        """(entries, 2): members in the current tomogram, and in all."""
        sure, here = self.label[self.label >= 0], self.label[(self.label >= 0) & (self.tomogram == self.current)]
        return np.stack([np.bincount(labels, minlength=len(self.entries)) for labels in (here, sure)], axis=1)

    def picked(self) -> np.ndarray:
        """Boolean (n,): members of entries that are picked."""
        flags = np.array([entry.picked for entry in self.entries] + [False])
        return np.asarray(flags[self.label])

    def visible(self) -> np.ndarray:
        here = self.tomogram == self.current
        if self.show_left_out:
            return here
        return here & (self.picked() | self.selection | (self.members(self.at_hand) & (self.label >= 0)))

    def kind(self, entry: int) -> str:
        """What kinds of proposals an entry comes from; "by hand" without."""
        kinds = {p.kind for p in self.proposals if p.name in self.entries[entry].sources}
        return ", ".join(sorted(kinds)) or "by hand"

    def is_as_proposed(self, entry: int) -> bool:
        """Whether an entry is one proposal, all of it and nothing else, so that its facts hold."""
        sources = self.entries[entry].sources
        return len(sources) == 1 and bool((self.members(entry) == self._proposed(sources)).all())

    def look_at(self, entry: int) -> None:
        """Take an entry to hand: its facts are shown, its members are drawn."""
        if entry != self.at_hand and 0 <= entry < len(self.entries):
            self.at_hand = entry
            self.tell("view")

    def set_view(self, show_left_out: Optional[bool] = None, this_tomogram_alone: Optional[bool] = None) -> None:
        """Draw on slices what is not picked, too; draw the other tomograms' candidates faintly in the UMAP."""
        self.show_left_out = self.show_left_out if show_left_out is None else show_left_out
        if this_tomogram_alone is not None:
            self.this_tomogram_alone = this_tomogram_alone
        self.tell("view")

    def go_to(self, row: int) -> None:
        """Bring the cross-hair to a candidate and its cluster to hand; it is selected, unless it is one of several that are
        and stay so."""
        if self.label[row] >= 0:
            self.look_at(int(self.label[row]))
        self._bring(row)

    def leave(self) -> None:
        """What was selected in the UMAP stays so while someone looks about in the slices."""
        self.focus = None
        self.tell("selection")

    def show_selection(self) -> None:
        """Bring what is selected into the slices: its most probable candidate, of this tomogram if it has one."""
        rows = np.flatnonzero(self.selection)
        if not len(rows):
            return
        here = rows[self.tomogram[rows] == self.current]
        if not len(here):
            counts = np.bincount(self.tomogram[rows])
            here = rows[self.tomogram[rows] == counts.argmax()]
        self._bring(int(here[np.nan_to_num(self.candidates.probability[here]).argmax()]))

    def step(self, forward: bool) -> None:
        """Go to the next one of what is selected, or of the entry at hand, by falling probability; round at the ends."""
        several = self.selection.sum() > 1
        rows = np.flatnonzero(self.selection if several else self.members(self.at_hand) & (self.label >= 0))
        if not len(rows):
            return
        order = np.lexsort((-np.nan_to_num(self.candidates.probability[rows]), self.tomogram[rows]))
        rows = rows[order]
        at = np.flatnonzero(rows == self.focus)
        here = int(at[0]) if len(at) else (-1 if forward else 0)
        self._bring(int(rows[(here + (1 if forward else -1)) % len(rows)]))

    # ------------------------------ deciding ------------------------------
    def rename(self, entry: int, name: str) -> None:
        """Raises ValueError for a name that another entry has, or that cannot be one."""
        name = checked_name(name)
        if name != self.entries[entry].name:
            self._require_free(name)
            self._remember()
            self.entries[entry] = self.entries[entry]._replace(name=name)
            self._decided()

    def set_picked(self, entries: Sequence[int], picked: bool) -> None:
        """Pick these entries, or discard them: they stay in the list and can be picked again."""
        self._remember()
        for entry in entries:
            self.entries[entry] = self.entries[entry]._replace(picked=picked)
        self._decided()

    def merge(self, entries: Sequence[int]) -> None:
        """Make one entry of several, which takes name and colour of the first of them and is picked."""
        if len(entries) < 2:
            raise ValueError("Choose two clusters or more to merge: hold Ctrl and click on them in the list.")
        self._remember()
        first, *others = sorted(entries)
        self.label[np.isin(self.label, others)] = first
        sources = tuple(name for entry in (first, *others) for name in self.entries[entry].sources)
        self.entries[first] = self.entries[first]._replace(sources=sources, picked=True)
        kept = [number for number in range(len(self.entries)) if number not in others]
        new = np.full(len(self.entries) + 1, -1)  # the last for -1
        new[kept] = np.arange(len(kept))
        self.label = new[self.label]
        self.entries = [self.entries[number] for number in kept]
        self.at_hand = kept.index(first)
        self._decided()

    def new_entry(self, name: str = "") -> int:
        """Make an entry, picked, of what is selected; candidates leave the entries that they were in."""
        self._require_selection()
        name = checked_name(name) if name else free_name("selection", self.names())
        self._require_free(name)
        self._remember()
        self._append(name, self.selection)
        self.at_hand = len(self.entries) - 1
        self._decided()
        return self.at_hand

    def add_selection(self, entry: int) -> None:
        """Move what is selected into an entry."""
        self._require_selection()
        self._remember()
        self.label[self.selection] = entry
        self._decided()

    def take_out_selection(self) -> None:
        """Take what is selected out of the entries that it is in."""
        self._require_selection()
        self._remember()
        self.label[self.selection] = -1
        self._decided()

    def toggle(self, row: int) -> None:
        """Take a candidate out of its entry, or put it back: into that of its proposal, else into the one at hand."""
        if self.label[row] >= 0:
            new = -1
        elif self.entries:
            new = self._home(row)
        else:
            return
        self._remember()
        self.label[row] = new
        self._decided()

    def take_over(self, other: "ClustersSession") -> int:
        """Make an entry of each that is picked in another session on some of the same candidates, as after these were
        clustered again. Candidates are the same that lie at the same place. Returns the number of entries."""
        rows = {_place(self, row): row for row in range(len(self.label))}
        found = []
        for number, entry in enumerate(other.entries):
            places = [_place(other, row) for row in np.flatnonzero(other.members(number))]
            own = np.array([rows[place] for place in places if place in rows], dtype=int)
            if entry.picked and len(own):
                found.append((entry.name, own))
        if not found:
            raise ValueError("No cluster is marked to be picked: mark one, or close this window.")
        self._remember()
        for name, own in found:
            self._append(free_name(name, self.names()), own)
        self.at_hand = len(self.entries) - 1
        self._decided()
        return len(found)

    # ------------------------------ what comes out ------------------------------
    def chosen(self) -> List[Dict[str, Any]]:
        """The entries that are picked, as selection.json lists them."""
        found = []
        for number, entry in enumerate(self.entries):
            members, proposed = self.members(number), self._proposed(entry.sources)
            if entry.picked and members.any():
                add, remove = members & ~proposed, proposed & ~members
                ids = self.candidates.ids
                found.append({"name": entry.name, "from": list(entry.sources),
                              "add": sorted(ids[add].tolist()), "remove": sorted(ids[remove].tolist())})  # fmt: skip
        return found

    def restore(self, chosen: Sequence[Dict[str, Any]]) -> None:
        """Take over entries as `chosen` gives them, as one step for undo; proposals in none of them are discarded.

        Raises
        ------
        ValueError
            In one sentence, where they do not fit to these proposals and candidates; nothing is changed then.
        """
        known = {proposal.name: number for number, proposal in enumerate(self.proposals)}
        row_of = {int(value): row for row, value in enumerate(self.candidates.ids)}
        entries: List[Entry] = []
        label = np.full(len(self.label), -1)
        for item in chosen:
            name, sources = checked_name(item["name"]), tuple(item["from"])
            unknown = [source for source in sources if source not in known]
            if unknown:
                raise ValueError(f"{name} is made of {unknown[0]}, which is no cluster here.")
            missing = [number for key in ("add", "remove") for number in item[key] if number not in row_of]
            if missing:
                raise ValueError(f"{name} has the candidate {missing[0]}, which is not here.")
            members = self._proposed(sources)
            members[[row_of[number] for number in item["add"]]] = True
            members[[row_of[number] for number in item["remove"]]] = False
            if name in [entry.name for entry in entries]:
                raise ValueError(f"{name} is there twice.")
            if (label[members] >= 0).any():
                raise ValueError(f"{name} shares candidates with {entries[label[members].max()].name}.")
            label[members] = len(entries)
            entries.append(Entry(name, sources, True, known[sources[0]] if sources else len(known) + len(entries)))
        for proposal in self.proposals:
            if not any(proposal.name in entry.sources for entry in entries):
                label[self._proposed((proposal.name,)) & (label < 0)] = len(entries)
                name = free_name(proposal.name, [entry.name for entry in entries])
                entries.append(Entry(name, (proposal.name,), False, known[proposal.name]))
        self._remember()
        self.entries, self.label, self.at_hand = entries, label, 0
        self._decided()

    def names(self) -> List[str]:
        return [entry.name for entry in self.entries]

    # ------------------------------ helpers ------------------------------
    def _bring(self, row: int) -> None:
        self.show_tomogram(int(self.tomogram[row]))
        self.focus = row
        self.select(np.array([row]), "add" if self.selection[row] else "replace")
        self.move_cursor(self.xyz[row])

    def _proposed(self, sources: Sequence[str]) -> np.ndarray:
        numbers = [number for number, proposal in enumerate(self.proposals) if proposal.name in sources]
        return np.isin(self.candidates.proposal, numbers)

    def _home(self, row: int) -> int:
        number = self.candidates.proposal[row]
        name = self.proposals[number].name if number >= 0 else None
        return next((i for i, entry in enumerate(self.entries) if name in entry.sources), self.at_hand)

    def _append(self, name: str, rows: np.ndarray) -> None:
        colour = 1 + max((entry.colour for entry in self.entries), default=-1)
        self.label[rows] = len(self.entries)
        self.entries.append(Entry(name, (), True, colour))

    def _require_selection(self) -> None:
        if not self.selection.any():
            raise ValueError("Select candidates first: draw a line around them in the UMAP, or click on one.")

    def _require_free(self, name: str) -> None:
        if name in self.names():
            raise ValueError(f"{name} is the name of another cluster: choose one of its own, or merge the two.")

    def _state(self) -> _State:
        return _State(list(self.entries), self.label.copy(), self.at_hand)

    def _set_state(self, state: _State) -> None:
        self.entries, self.label, self.at_hand = list(state.entries), state.label.copy(), state.at_hand


def checked_name(name: str) -> str:
    """A name of a cluster, which becomes one of files and of a column: letters, digits, ``_``, ``-`` and dots within.

    Raises
    ------
    ValueError
        In one sentence.
    """
    name = re.sub(r"\s+", "_", str(name).strip())
    if not re.fullmatch(r"\w[\w.-]*", name, flags=re.ASCII) or name == NO_CLUSTER:
        raise ValueError(f"'{name}' cannot be the name of a cluster: use letters, digits, _ and -.")
    return name


def free_name(name: str, taken: Sequence[str]) -> str:
    """The name, or where it is taken the next one with a number at its end."""
    wanted, number = name, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name


def _place(session: ClustersSession, row: int) -> Tuple[Any, ...]:
    name = session.tomograms[session.tomogram[row]].name
    return (name, *np.round(session.xyz[row], 2).tolist())
