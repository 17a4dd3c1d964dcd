"""View picks on slices of their tomograms and filter them (thresholds, sizes, accept and reject by hand), or view clusters.

Opens a window (Tk; it works through `ssh -X`) that begins with the picks; with the peaks of `tomotwin locate` as
--candidates thresholds can be lowered, too. What stays is saved as a STAR file that also keeps thresholds and
decisions: --resume goes on from one, --apply filters these or other tomograms in the same way, without a window.

With a folder of `tomotwin cluster` instead of tomograms and --picks it shows its clusters: the UMAP, linked both ways with
the slices. Clusters are named, merged, discarded, and made by a line drawn around candidates; what is chosen is saved as
DIR/selection.json, or --out, for `tomotwin cluster DIR --selection`. Tomograms after the folder stand in for those that are
no longer where they were; where none is found the UMAP is shown alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tomotwin_core.cli.options import add_voxel_size, require_distinct
from tomotwin_core.cli.view_clusters import add_cluster_options, clusters_folder_of, view_clusters, window_problems

if TYPE_CHECKING:
    from tomotwin_core.coordinates import Coordinates
    from tomotwin_core.tomogram import TomogramSource
    from tomotwin_view.session import Picks, PicksSession

HELP = "look at picks or clusters in their tomograms, and decide in a window"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tomograms", nargs="+", type=Path, metavar="TOMOGRAM.mrc", help="tomograms, or a folder of `tomotwin cluster`"
    )
    parser.add_argument(
        "--picks",
        nargs="+",
        type=Path,
        default=[],
        metavar="PICKS.star",
        help="picks, or any positions, in these tomograms, joined by the tomogram's name",
    )
    parser.add_argument(
        "--candidates", nargs="+", type=Path, default=[], metavar="PEAKS.star", help="all peaks, fainter ones too"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.star", help="where to save; without it the window on picks asks"
    )
    earlier = parser.add_mutually_exclusive_group()
    earlier.add_argument("--resume", type=Path, metavar="FILE.star", help="go on from a saved file, in the window")
    earlier.add_argument(
        "--apply", type=Path, metavar="FILE.star", help="filter as in a saved file and write --out, without a window"
    )
    add_voxel_size(parser, "the tomograms")
    add_cluster_options(parser)


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.errors import UserError
    from tomotwin_core.tomogram import open_tomogram

    folder = clusters_folder_of(options.tomograms)
    if folder is not None:
        view_clusters(folder, options)
        return
    if not options.picks:
        raise UserError("Nothing to look at: give positions with --picks, or a folder of `tomotwin cluster`.")
    if options.apply and not options.out:
        raise UserError("--apply writes without a window: say where with --out FILE.star.")
    sources = [open_tomogram(path, options.voxel_size) for path in options.tomograms]
    require_distinct([source.name for source in sources], "tomograms")
    picks = _tables(options.picks, sources)
    if not any(len(table) for table in picks):
        names = ", ".join(source.name for source in sources)
        raise UserError(f"{options.picks[0]} has no positions in {names}: give the picks of these tomograms.")
    session = session_of(sources, picks, _tables(options.candidates, sources))
    for earlier in (options.apply, options.resume):
        if earlier:
            print(_apply(earlier, session))
    if options.apply:
        print(save(session, options.out, options.picks))
    else:
        _open_window(session, options)


def session_of(
    sources: Sequence[TomogramSource], picks: Sequence[Coordinates], candidates: Sequence[Coordinates] = ()
) -> PicksSession:
    """A session on these tomograms, which begins with the picks; the fainter candidates come with lower thresholds."""
    import numpy as np

    from tomotwin_core.coordinates import UNDECIDED
    from tomotwin_view.session import PicksSession, Tomogram, with_candidates

    tomograms = [Tomogram(s.name, s.voxel_size_A, s.shape, partial(getattr, s, "voxels")) for s in sources]
    names = [source.name for source in sources]
    targets = sorted({str(label) for table in [*picks, *candidates] for label in table.label})
    rows, score_min = _rows(picks, names, targets), None
    if candidates:
        rows, score_min, _ = with_candidates(rows, _rows(candidates, names, targets), (len(names), len(targets)))
    session = PicksSession(tomograms, targets, rows, score_min)
    decided = [np.full(len(t), UNDECIDED) if t.accepted is None else t.accepted for t in picks]
    session.decisions[: sum(map(len, picks))] = np.concatenate(decided)
    return session


def _rows(tables: Sequence[Coordinates], names: list[str], targets: list[str]) -> Picks:
    """Tables of positions as the window's one table."""
    import numpy as np

    from tomotwin_core.coordinates import relion_angles_from_rotation
    from tomotwin_view.session import Picks

    rotations = [table.rotation for table in tables if table.rotation is not None]
    extra = {}
    if len(rotations) == len(tables):
        angles = np.concatenate([relion_angles_from_rotation(rotation) for rotation in rotations])
        extra = {f"rlnAngle{name}": angles[:, i] for i, name in enumerate(("Rot", "Tilt", "Psi"))}
    return Picks(
        tomogram=np.repeat([names.index(table.tomogram) for table in tables], [len(table) for table in tables]),
        target=np.array([targets.index(str(label)) for table in tables for label in table.label], dtype=int),
        xyz=np.concatenate([table.xyz for table in tables]),
        score=np.concatenate([table.score for table in tables]).astype(float),
        diameter_A=np.concatenate([table.diameter_A for table in tables]).astype(float),
        fdr=np.concatenate([np.full(len(t), np.nan) if t.fdr is None else t.fdr for t in tables]).astype(float),
        extra=extra,
    )


def save(session: PicksSession, path: Path, picks: Sequence[Path]) -> str:
    """Write what stays, the thresholds and the decisions; returns a sentence about it."""
    from tomotwin_core.files import atomic_path, provenance
    from tomotwin_view.session_file import write_session

    with atomic_path(path) as temporary:
        write_session(str(temporary), session, provenance(picks=list(picks)))
    stay = session.accepted()
    return f"{path}: {int(stay.sum())} of {len(stay)} candidates stay"


def _tables(paths: Sequence[Path], sources: Sequence[TomogramSource]) -> list[Coordinates]:
    """The positions in these tomograms, in their voxels; those in other tomograms are named and left out."""
    from tomotwin_core.coordinates import placed_coordinates

    found = [placed for path in paths for placed in placed_coordinates(path, sources)]
    strangers = sorted({table.tomogram for source, table in found if source is None})
    if strangers:
        print(f"not shown and not saved, as their tomograms are not given: {', '.join(strangers)}")
    return [table for source, table in found if source is not None]


def _apply(path: Path, session: PicksSession) -> str:
    from tomotwin_core.errors import UserError
    from tomotwin_view.session_file import apply_session

    try:
        applied = apply_session(str(path), session)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its path.") from None
    except ValueError as error:
        raise UserError(str(error)) from None
    lost = f", {applied.without_pick} of other picks passed over" if applied.without_pick else ""
    return f"{path}: thresholds and {applied.decisions} decisions by hand taken over{lost}"


def _open_window(session: PicksSession, options: argparse.Namespace) -> None:
    with window_problems("filter without a window with --apply"):
        from tkinter import filedialog

        from tomotwin_view.window import PicksWindow

    def save_somewhere(session: PicksSession) -> str | None:
        path = options.out or filedialog.asksaveasfilename(defaultextension=".star", initialfile="filtered.star")
        return save(session, Path(path), options.picks) if path else None

    names = ", ".join(tomogram.name for tomogram in session.tomograms[:3])
    label = f"save {options.out.name}" if options.out else "save as ..."
    with window_problems("filter without a window with --apply"):
        window = PicksWindow(session, save_somewhere, label, f"Picks of {names}")
    session.changed = False
    window.run()
