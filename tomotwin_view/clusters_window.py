"""The window on clusters: UMAP, slices, the list of clusters with gallery and facts, around one session, in Tk.

What is selected in the UMAP is shown in the slices and the reverse. Candidates that are selected can be clustered again by
themselves: the engine's command does it beside the window, a further window shows what it found, and what is saved there
becomes clusters here.
"""

import os
import tkinter as tk
from functools import partial
from tkinter import messagebox, ttk
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from .base_window import SessionWindow
from .cluster_controls import ClusterList, facts_in_words
from .cluster_files import SELECTION_FILE, Opener, read_clusters, read_selection, write_selection
from .cluster_session import ClustersSession
from .colours import cluster_styles
from .controls import with_scrollbar
from .engine_run import EngineRun
from .gallery import GalleryPanel
from .scatter import ScatterPanel

SHORTCUTS = """Mouse in the UMAP
  left drag         draw a line around candidates: they are selected; with Shift too, with Ctrl no longer
  left click        select the candidate there and go to it in the slices; with Shift too, with Ctrl no longer
  right click       take the candidate out of its cluster, or put it back
  wheel             magnify;  middle drag moves

Mouse in the slices
  left click        select the candidate there, in the UMAP, too; beside candidates: move the cross-hair
  Shift and left    select more: a click, or a line drawn around them
  right click       take the candidate out of its cluster, or put it back
  wheel             go through the slices; with Shift ten at a time; with Ctrl magnify
  middle drag       move a magnified view

Keys
  n, b              next and previous of those selected, or of the cluster at hand
  Escape            select nothing
  m                 merge the clusters chosen in the list
  p                 pick or discard the clusters chosen in the list
  c                 make a cluster of what is selected
  l                 select the leftovers: all that is in no cluster
  Up, Down          one slice on or back in the orientation under the mouse (Page Up and Page Down: ten)
  [ and ]           previous and next tomogram
  + and -           magnify the slices, reduce;  0 shows the whole tomogram and the whole UMAP
  h                 circle in the slices what is not picked, too, or not
  Ctrl+Z, Ctrl+Y    undo, redo
  Ctrl+S            save
  F1                this list"""

WATCH_MS = 300
FEWEST_AGAIN = 10
"""Fewer candidates than this are not clustered again."""


class ClustersWindow(SessionWindow):
    """A window on the folder of `tomotwin cluster`; further parameters as `SessionWindow`.

    Parameters
    ----------
    folder : str
        Where galleries are, and what is clustered again.
    opener : function
        Gives what opens a tomogram, see cluster_files.py. A session without any voxels is shown without slices.
    engine, engine_options : sequence of str
        The words in front of "cluster" with which the engine is called, and options at the end, such as the model.
    save_label : str
        What the button says.
    """

    SHORTCUTS = SHORTCUTS
    UNSAVED = "Clusters have changed since the last save. Save before closing?"
    FILES = [("selections", "*.json")]
    SIZE = (1500, 900)

    def __init__(
        self,
        session: ClustersSession,
        save: Callable[[ClustersSession], Optional[str]],
        folder: str,
        opener: Opener,
        engine: Sequence[str] = ("tomotwin",),
        save_label: str = "Save",
        title: str = "Clusters",
        parent: Any = None,
        engine_options: Sequence[str] = (),
    ) -> None:
        super().__init__(session, save, title, parent)
        self.folder, self._opener = folder, opener
        self._engine, self._engine_options = list(engine), list(engine_options)
        self.further: List[ClustersWindow] = []
        """Windows on what was clustered again."""
        self._run: Optional[EngineRun] = None
        self._watching = ""
        panes = tk.PanedWindow(self.root, orient="horizontal", sashwidth=6, background="#404040")
        panes.grid(row=1, column=0, sticky="nsew")
        self.scatter_canvas, self.scatter = self.add_panel(panes, (4.8, 7), ScatterPanel)
        panes.add(self.scatter_canvas.get_tk_widget(), stretch="always", minsize=200, width=480)
        if session.has_voxels:
            panes.add(self.add_slices(panes, cluster_styles), stretch="always", minsize=200, width=480)
        self._build_list()
        self._build_actions()
        self.add_save_buttons(self.side, save_label)
        self._build_facts()
        self.finish()
        self.say(session.verdict or "F1 lists mouse and keys.")

    def load_file(self, path: str) -> str:
        self.session.restore(read_selection(path))
        return f"{len(self.session.chosen())} clusters of {os.path.basename(path)} were taken over."

    def destroy(self) -> None:
        if self._run is not None:
            self._run.stop()
        if self._watching:
            self.root.after_cancel(self._watching)
        for window in self.further:
            if window.root.winfo_exists():
                window.destroy()
        self.scatter.close()
        self.gallery.close()
        super().destroy()

    # ------------------------------ building ------------------------------
    def _build_list(self) -> None:
        frame, self.clusters = with_scrollbar(self.side, partial(ClusterList, session=self.session))
        frame.pack(fill="x")

    def _build_actions(self) -> None:
        row = self._row("cluster", [("merge", self._merge), ("pick / discard", self._pick_or_discard)])
        self.name = ttk.Entry(row, width=18)
        self.name.pack(side="left", padx=(8, 2), fill="x", expand=True)
        for event in ("<Return>", "<KP_Enter>"):
            self.name.bind(event, lambda _: self._rename())
        ttk.Button(row, text="name", width=6, command=self._rename).pack(side="left")
        self._row(
            "selected",
            [
                ("new cluster", self._new_cluster),
                ("add to cluster", self._add),
                ("take out", self._take_out),
            ],
        )
        actions = [("select leftovers", self._select_leftovers), ("select cluster", self._select_cluster)]
        row = self._row("", actions)
        self.again_button = ttk.Button(row, text="cluster again", command=self.cluster_again)
        self.again_button.pack(side="left")
        row = self._row("", [("undo", self.session.undo), ("redo", self.session.redo)])
        self.left_out = tk.BooleanVar(row, False)
        self.alone = tk.BooleanVar(row, False)
        for text, variable in (("circle all", self.left_out), ("this tomogram alone", self.alone)):
            box = ttk.Checkbutton(row, text=text, variable=variable, command=self._view_chosen)
            box.pack(side="left", padx=(8, 0))

    def _row(self, title: str, actions: Sequence[Any]) -> Any:
        row = ttk.Frame(self.side)
        row.pack(fill="x", pady=(4, 0))
        ttk.Label(row, text=title, width=8).pack(side="left")
        for text, action in actions:
            ttk.Button(row, text=text, width=len(text) + 1, command=partial(self._do, action)).pack(side="left")
        return row

    def _build_facts(self) -> None:
        canvas, self.gallery = self.add_panel(self.side, (4.4, 2.6), partial(GalleryPanel, folder=self.folder))
        # Whatever is packed last gets the room that is left: on a small screen the gallery shrinks, and no word is lost.
        self.facts = ttk.Label(self.side, padding=(0, 4), wraplength=500, justify="left", anchor="nw")
        self.facts.pack(side="bottom", fill="x")
        canvas.get_tk_widget().pack(fill="both", expand=True, pady=(6, 0))

    def keys(self) -> Dict[str, Callable[[], None]]:
        keys: Dict[str, Callable[[], None]] = {
            "m": partial(self._do, self._merge),
            "p": partial(self._do, self._pick_or_discard),
            "c": partial(self._do, self._new_cluster),
            "l": partial(self._do, self._select_leftovers),
            "h": lambda: self.session.set_view(show_left_out=not self.session.show_left_out),
            "Escape": lambda: self.session.select(np.array([], dtype=int)),
            "0": self._whole,
        }
        return keys

    # ------------------------------ acting ------------------------------
    def _do(self, action: Callable[[], None]) -> None:
        """Act, or say why it cannot be."""
        try:
            action()
        except ValueError as error:
            self.root.bell()
            self.say(str(error))

    def _merge(self) -> None:
        self.session.merge(self.clusters.chosen())

    def _pick_or_discard(self) -> None:
        chosen = self.clusters.chosen()
        if chosen:
            self.session.set_picked(chosen, not all(self.session.entries[i].picked for i in chosen))

    def _rename(self) -> None:
        if self.session.entries:
            self._do(lambda: self.session.rename(self.session.at_hand, self.name.get()))
        self.scatter_canvas.get_tk_widget().focus_set()

    def _new_cluster(self) -> None:
        self.session.new_entry()

    def _add(self) -> None:
        if not self.session.entries:
            raise ValueError("There is no cluster to add to: make a new one.")
        self.session.add_selection(self.session.at_hand)

    def _take_out(self) -> None:
        self.session.take_out_selection()

    def _select_leftovers(self) -> None:
        self.session.select(self.session.label < 0)

    def _select_cluster(self) -> None:
        self.session.select(np.isin(self.session.label, self.clusters.chosen()))

    def _whole(self) -> None:
        self.scatter.whole()
        if self.slices is not None:
            self.slices.zoom(0.0)

    def _view_chosen(self) -> None:
        self.session.set_view(self.left_out.get(), self.alone.get())

    # ------------------------------ clustering again ------------------------------
    def cluster_again(self) -> None:
        """Have the engine cluster what is selected, by itself, and open a window on the result."""
        if self._run is not None:
            self._run.stop()
            return
        session = self.session
        if session.selection.sum() < FEWEST_AGAIN:
            self.say(f"Select {FEWEST_AGAIN} candidates or more to cluster them again: draw a line around them.")
            return
        ids = sorted(session.candidates.ids[session.selection].tolist())
        number = 1
        while any(os.path.exists(self._again(number, end)) for end in ("", ".json")):
            number += 1
        out, selection = self._again(number, ""), self._again(number, ".json")
        words = [*self._engine, "cluster", self.folder, "--recompute", "--selection", selection, "--out", out]
        words += self._engine_options
        try:
            write_selection(selection, [{"name": "selection", "from": [], "add": ids, "remove": []}])
            self._run = EngineRun(words, self._again(number, ".log"))
        except OSError as error:
            messagebox.showerror("Not clustered again", str(error), parent=self.root)
            return
        self.again_button.configure(text="stop")
        self._watch(out)

    def _again(self, number: int, end: str) -> str:
        return os.path.join(self.folder, f"again_{number:02d}{end}")

    def _watch(self, out: str) -> None:
        run, self._watching = self._run, ""
        if run is None:
            return
        if run.code is None:
            self.say(f"Clustering again: {run.last_line()}")
            self._watching = self.root.after(WATCH_MS, self._watch, out)
            return
        self._run = None
        self.again_button.configure(text="cluster again")
        if run.code < 0:
            self.say("Clustering again was stopped.")
        elif run.code:
            self.say("Not clustered again.")
            messagebox.showerror("Not clustered again", run.last_line(), parent=self.root)
        else:
            self._open_again(out)

    def _open_again(self, out: str) -> None:
        try:
            session = read_clusters(out, self._opener)
        except (OSError, ValueError) as error:
            messagebox.showerror("Not clustered again", str(error), parent=self.root)
            return
        self.say(session.verdict)
        title = f"{self.root.title()}: {os.path.basename(out)}"
        save = partial(self._take_over, out)
        self.further.append(
            ClustersWindow(
                session,
                save,
                out,
                self._opener,
                self._engine,
                "use these clusters",
                title,
                self.root,
                self._engine_options,
            )
        )

    def _take_over(self, folder: str, session: ClustersSession) -> str:
        """Make clusters here of what was saved in a further window; they are kept beside what it showed, too."""
        write_selection(os.path.join(folder, SELECTION_FILE), session.chosen())
        number = self.session.take_over(session)
        self.say(f"{number} clusters were taken over.")
        return f"{number} clusters were taken over into the first window."

    # ------------------------------ following ------------------------------
    def refresh_controls(self) -> None:
        super().refresh_controls()
        session = self.session
        self.clusters.refresh()
        self.left_out.set(session.show_left_out)
        self.alone.set(session.this_tomogram_alone)
        picked = session.picked()
        here = int((picked & (session.tomogram == session.current)).sum())
        of = f"tomogram {session.current + 1} of {len(session.tomograms)}"
        chosen = sum(entry.picked for entry in session.entries)
        self.counts.configure(
            text=f"{of}: {here} candidates in {chosen} clusters that are picked; in all {int(picked.sum())} of "
            f"{len(picked)} candidates"
        )
        self.facts.configure(text=facts_in_words(session))
        # Asked of Tk itself: tkinter's focus_get stumbles over the list of a combobox.
        if session.entries and self.root.tk.call("focus") != str(self.name):
            self.name.delete(0, tk.END)
            self.name.insert(0, session.entries[session.at_hand].name)
