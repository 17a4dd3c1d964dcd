"""Which project a path is, and which of its tilt series a tomogram was made from.

A path is RELION 5's tomograms.star; a .tomostar or .xml of Warp; any of the files of one series that `loose.py` reads
(others of its name beside it are read along); or a folder with such files of several series.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tomotwin_core.errors import UserError
from tomotwin_core.names import require_name
from tomotwin_core.project import loose
from tomotwin_core.project.ctffind import is_ctf_text
from tomotwin_core.project.relion import is_relion_project, read_relion, reconstructed
from tomotwin_core.project.series import TiltSeries
from tomotwin_core.project.warp import read_tomostar, read_warp_xml

_WARP = (".xml", ".tomostar")
_LOOSE = (".mdoc", ".tlt", ".rawtlt", ".xf", ".defocus", ".aln")
# What programs put behind a series' name when they call its tomogram after it, and before it.
_BEHIND = re.compile(r"(_full)?(_rec(on)?|_Vol|_vol|_ali|_bin\d+|_b\d+|_\d+\.\d+Apx|_even|_odd|_denoised|_deconv)$")
_BEFORE = ("rec_", "denoised_rec_")


@dataclass(frozen=True)
class Project:
    """Tilt series that were processed together; each is read when it is asked for.

    readers : what reads each, by name, in the order of their files.  file_names : names of tomograms' files that the project
    itself gives -> name of the series.
    """

    path: Path
    readers: Mapping[str, Callable[[], TiltSeries]]
    file_names: Mapping[str, str]

    def all(self) -> list[TiltSeries]:
        """Every series."""
        return [read() for read in self.readers.values()]

    def of(self, tomogram: str, file_name: str = "") -> TiltSeries:
        """The series that a tomogram was made from; a `UserError` where there is none, or doubt. Of a single one all are."""
        return self.all()[0] if len(self.readers) == 1 else self.readers[self.name_of(tomogram, file_name)]()

    def name_of(self, tomogram: str, file_name: str = "") -> str:
        """The name of a tomogram's series; a `UserError` where there is none, or doubt."""
        if file_name in self.file_names:
            return self.file_names[file_name]
        found = [name for name in self.readers if name in names_of(tomogram)]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(list(self.readers)[:5]) + (", ..." if len(self.readers) > 5 else "")
        raise UserError(
            f"{self.path}: has {'several tilt series' if found else 'no tilt series'} of {tomogram} among {listed}; "
            "give the file of its own series, or call the tomogram after it"
        )


def is_project_file(path: Path) -> bool:
    """Whether a file is one that `read_project` takes; STAR and text files are looked into."""
    if path.suffix in (*_WARP, *_LOOSE):
        return True
    return is_relion_project(path) if path.suffix == ".star" else is_ctf_text(path)


def read_project(path: Path) -> Project:
    """The project at a path.

    Raises
    ------
    UserError
        Where there is none, a file cannot be read, or what lies side by side does not agree.
    """
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder; give a project's file")
    if path.suffix == ".star":
        return Project(path, read_relion(path), reconstructed(path))
    if path.suffix in _WARP:
        name = require_name(path.stem, path)
        return Project(path, {name: partial(_read_warp, path)}, {})
    if path.suffix in _LOOSE or is_ctf_text(path):
        name = require_name(loose.name_of(path), path)
        return Project(path, {name: partial(loose.read_loose, loose.files_of(path.parent, name), name)}, {})
    raise UserError(
        f"{path}: of no known kind; give tomograms.star of RELION 5, .tomostar or .xml of Warp, .tlt, .rawtlt, .defocus, "
        ".mdoc or .aln, a CTF table of CTFFIND, or a folder of them"
    )


def found_beside(tomogram: Path, name: str) -> TiltSeries | None:
    """The series of a tomogram, out of files in its own folder that bear its name; None where there are none, or doubt.

    Names of several kinds (TS_1 and TS_1_rec), or of Warp and of others side by side, are doubt.
    """
    readers: list[Callable[[], TiltSeries]] = []
    for candidate in names_of(name):
        warp = [tomogram.parent / (candidate + ending) for ending in _WARP]
        readers += [partial(_read_warp, path) for path in warp if path.is_file() and _is_series(path)][:1]
        files = loose.files_of(tomogram.parent, candidate)
        if files.angles or files.aln or files.mdoc:
            readers.append(partial(loose.read_loose, files, candidate))
    return readers[0]() if len(readers) == 1 else None


def names_of(tomogram: str) -> set[str]:
    """Names of series that a tomogram of this name may be called after; its own first of all."""
    names = {tomogram}
    for before in _BEFORE:
        if tomogram.startswith(before) and tomogram != before:
            names.add(tomogram[len(before) :])
    for _ in range(3):  # NAME_bin4_rec
        names |= {short for name in names if (short := _BEHIND.sub("", name))}
    return names


def _folder(path: Path) -> Project:
    """All series of a folder: Warp's where there are any, else the loose ones."""
    lists = [p for p in sorted(path.glob("*.star")) if is_relion_project(p)]
    if len(lists) == 1:
        return read_project(lists[0])
    found: dict[str, Callable[[], TiltSeries]] = {}
    for ending in _WARP:
        found = found or {p.stem: partial(_read_warp, p) for p in sorted(path.glob(f"*{ending}")) if _is_series(p)}
    if not found:
        files = {name: loose.files_of(path, name) for name in map(loose.name_of, _sorted(path, _LOOSE))}
        found = {name: partial(loose.read_loose, one, name) for name, one in files.items() if one.all}
    if not found:
        raise UserError(
            f"{path}: has no files of a tilt series (tomograms.star, .tomostar, .xml, .tlt, .rawtlt, .mdoc, .aln); give another folder"
        )
    return Project(path, found, {})


def _read_warp(path: Path) -> TiltSeries:
    name = require_name(path.stem, path)
    return read_tomostar(path, name) if path.suffix == ".tomostar" else read_warp_xml(path, name)


def _is_series(path: Path) -> bool:
    """Frames have .xml files of Warp, too, often in the same folder."""
    return path.suffix != ".xml" or b"<TiltSeries" in path.read_bytes()[:2000]


def _sorted(path: Path, endings: Iterable[str]) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.suffix in endings and p.is_file())
