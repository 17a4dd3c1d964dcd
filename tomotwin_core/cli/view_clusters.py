"""`tomotwin view` of a folder of `tomotwin cluster`: the window on clusters, and what keeps any window from opening."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from tomotwin_view.cluster_session import ClustersSession

ENGINE = (sys.executable, "-m", "tomotwin_core.cli.main")
"""This engine, as the window calls it to cluster a selection again."""


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """What the engine wants to know when the window has it cluster a selection again."""
    group = parser.add_argument_group("clustering a selection again, from the window on clusters")
    group.add_argument("--model", metavar="FILE", help="that the tomograms were embedded with (default: the released one)")
    group.add_argument("--no-library", action="store_true", help="as for `tomotwin cluster`")


def clusters_folder_of(paths: Sequence[Path]) -> Path | None:
    """The folder of `tomotwin cluster` among what was given, None where there is none; UserError for any other folder."""
    from tomotwin_core.errors import UserError
    from tomotwin_view.cluster_files import is_clusters_folder

    folders = [path for path in paths if path.is_dir()]
    for path in folders:
        _settled(path)
    if not folders:
        return None
    if len(folders) > 1 or not is_clusters_folder(str(folders[-1])):
        raise UserError(f"{folders[-1]} is no folder of `tomotwin cluster`: give one such folder, or tomograms and --picks.")
    return folders[0]


def _settled(folder: Path) -> None:
    from tomotwin_core.files import is_half_replaced

    if is_half_replaced(folder):
        from tomotwin_core.clustering.output import settle

        settle(folder)


def view_clusters(folder: Path, options: argparse.Namespace) -> None:
    """Open the window on a folder of clusters and stay until it is closed."""
    from tomotwin_core.errors import UserError
    from tomotwin_view.cluster_files import SELECTION_FILE

    if options.picks or options.candidates or options.apply:
        raise UserError(
            f"{folder} holds clusters: --picks, --candidates and --apply are for tomograms. A selection is applied without a "
            "window by `tomotwin cluster DIR --selection FILE.json --out DIR2`."
        )
    opener = partial(_open, {_name(path): path for path in options.tomograms if not path.is_dir()}, options.voxel_size)
    session = clusters_session(folder, opener, options.resume)
    out = options.out or folder / SELECTION_FILE
    with window_problems("write a selection.json by hand"):
        from tomotwin_view.clusters_window import ClustersWindow

        window = ClustersWindow(
            session,
            partial(save, out),
            str(folder),
            opener,
            ENGINE,
            f"save {out.name}",
            f"Clusters of {folder}",
            engine_options=_engine_options(options),
        )
    window.run()


def _engine_options(options: argparse.Namespace) -> list[str]:
    model = ["--model", str(options.model)] if options.model else []
    return model + ["--no-library"] * options.no_library


def clusters_session(folder: Path, opener: Callable, resume: Path | None) -> ClustersSession:
    """The session on a folder, going on from a selection where one is given."""
    from tomotwin_core.errors import UserError
    from tomotwin_view.cluster_files import read_clusters, read_selection

    try:
        session = read_clusters(str(folder), opener)
        if resume:
            session.restore(read_selection(str(resume)))
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read ({error.strerror}): check its path.") from None
    except ValueError as error:
        raise UserError(str(error)) from None
    session.changed = False
    return session


def save(path: Path, session: ClustersSession) -> str:
    """Write what is chosen; returns a sentence about it."""
    from tomotwin_view.cluster_files import write_selection

    chosen = session.chosen()
    write_selection(str(path), chosen)
    return f"{path}: {len(chosen)} clusters. Make references of them with: tomotwin cluster ... --selection {path} --out ..."


@contextmanager
def window_problems(instead: str) -> Iterator[None]:
    """Turn what keeps a window from opening into a UserError, which says what can be done `instead`."""
    from tomotwin_core.errors import UserError

    try:
        from tkinter import TclError
    except ImportError as error:
        raise UserError(
            f"the window needs Tk, which this Python does not have ({error}): install it (apt-get install python3-tk), "
            f"or {instead}."
        ) from None
    try:
        yield
    except TclError as error:
        raise UserError(
            f"the window cannot be opened ({error}): connect with ssh -X or on a desktop, or {instead}."
        ) from None


def _name(path: Path) -> str:
    from tomotwin_core.tomogram import tomogram_name

    return tomogram_name(path)


def _open(given: dict[str, Path], voxel_size_A: float | None, name: str, file: str | None) -> Callable[[], np.ndarray] | None:
    """What opens a tomogram: one that was given, else that which was clustered, if it is still there."""
    path = given.get(name) or (Path(file) if file else None)
    return None if path is None or not path.is_file() else partial(_voxels, path, voxel_size_A)


def _voxels(path: Path, voxel_size_A: float | None) -> np.ndarray:
    from tomotwin_core.tomogram import open_tomogram

    # The window takes sizes from the table of clusters; here any is right that lets the file be opened.
    return open_tomogram(path, voxel_size_A or 10.0).voxels
