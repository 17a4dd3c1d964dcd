"""Writing files so that an interrupted run leaves no half file, and saying in every file what made it.

A file or folder is written under a temporary name in the folder where it will stand and renamed when it is complete:
renaming within one folder is atomic, so a reader finds either the whole thing or nothing.
"""

import errno
import hashlib
import json
import os
import shlex
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tomotwin_core import __version__
from tomotwin_core.errors import UserError

# What the disk or the permissions refuse is the user's to mend; any other OSError is a mistake of ours.
_REFUSALS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
    errno.ENAMETOOLONG, errno.EFBIG, errno.ELOOP, errno.EIO, errno.ESTALE,
}  # fmt: skip

# Complete results of a folder on their way into it, and the file in there that names them.
_READY, _NAMES = ".ready-results", ".names"

_LIBRARIES = ("numpy", "scipy", "torch", "zarr", "mrcfile", "starfile", "gemmi", "safetensors")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there takes the name `path` when the block ends well.

    Works for files and for folders; missing parent folders are made. A file replaces a file, and a folder a
    folder. When the block raises, the temporary file or folder is removed and `path` is left as it was.

    Raises
    ------
    UserError
        When the place cannot be written to: no permission, a full disk, a file where a folder is needed, or
        the other way round, or a name that no file can have.
    """
    final = Path(path)
    if not final.name:
        raise UserError(f"{final} cannot be written: give the name of a file or folder in it.")
    with require_writable(final):
        # The ending stays last, because writers choose the format by it.
        temporary = final.with_name(f".part-{uuid.uuid4().hex[:8]}-{final.name}")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _put(temporary, final)
        except BaseException:
            remove(temporary)
            raise


@contextmanager
def require_writable(path: Path) -> Iterator[None]:
    """What the disk or the permissions refuse to who writes `path` becomes one sentence; so does a name that no file can have."""
    if "\0" in str(path):
        raise UserError(f"{str(path)!a} cannot be written: give the name of a file or folder.")
    try:
        yield
    except OSError as problem:
        # What was refused about another file, one that was read meanwhile, is told of that one, elsewhere.
        about = problem.filename2 or problem.filename
        if problem.errno not in _REFUSALS or not (about is None or str(path.parent) in str(about) or path.name in str(about)):
            raise
        raise UserError(
            f"{path} cannot be written ({problem.strerror}): choose another place or make room there."
        ) from problem


def content_of(path: Path) -> str:
    """32 hexadecimal digits that stand for the bytes of a file: another content, another digest, whatever its date says."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while piece := stream.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def _put(temporary: Path, final: Path) -> None:
    folder = temporary.is_dir()
    if os.path.lexists(final) and final.is_dir() != folder:
        # Never delete a folder because a file was to be called like it.
        raise UserError(
            f"{final} is there already and is a {'file' if folder else 'folder'}: choose another name or remove it."
        )
    if not folder or not final.exists():
        os.replace(temporary, final)
        return
    # A folder that holds something is not renamed over: the old one steps aside first.
    old = final.with_name(f".old-{uuid.uuid4().hex[:8]}-{final.name}")
    os.replace(final, old)
    try:
        os.replace(temporary, final)
    except BaseException:
        os.replace(old, final)
        raise
    remove(old)


@contextmanager
def replaced_results(folder: Path, record: str, names: Sequence[str]) -> Iterator[Path]:
    """Give a temporary folder for all of a folder's results; when the block ends well they replace those that are there, all of them.

    record : the file that says what the results are; without it there are none. It goes first and comes last, so that old
    results never stand beside new ones unnoticed.  names : of the other files and folders of results. Old ones that have no
    successor go, whatever else is in the folder stays.

    The new ones are complete, under one name, before the first old one goes: a run that is killed in between leaves them so, and
    `finish_replacing` puts them in place.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finish_replacing(folder, record, names)
    ours = any(os.path.lexists(folder / name) for name in (record, *names) if Path(name).suffix)
    for name in names:
        if not ours and not Path(name).suffix and os.path.lexists(folder / name):
            raise UserError(f"{folder / name} cannot be written: it is there already and no result of tomotwin; choose another place.")
    with require_writable(folder):
        new = folder / f".part-{uuid.uuid4().hex[:8]}-results"
        new.mkdir()
        try:
            yield new
            (new / _NAMES).write_text(json.dumps([name for name in names if os.path.lexists(new / name)]))
            os.replace(new, folder / _READY)
        finally:
            remove(new)
        try:
            finish_replacing(folder, record, names)
        except BaseException:  # a signal, most likely: who is asked to end has a moment for this
            finish_replacing(folder, record, names)
            raise


def is_half_replaced(folder: Path) -> bool:
    """Whether a run was killed while it put its results in the place of others; only who holds the folder's lock knows for sure."""
    return (folder / _READY).is_dir()


def finish_replacing(folder: Path, record: str, names: Sequence[str]) -> None:
    """Put complete results in place, those of a run that was killed meanwhile too; done twice it changes nothing."""
    ready = folder / _READY
    if not ready.is_dir():
        return
    with require_writable(folder):
        if (ready / record).exists():  # what is moved last
            coming = json.loads((ready / _NAMES).read_text())
            (folder / record).unlink(missing_ok=True)
            for name in names:
                if name not in coming or (os.path.lexists(ready / name) and (folder / name).is_dir()):
                    remove(folder / name)
                if os.path.lexists(ready / name):
                    os.replace(ready / name, folder / name)
            os.replace(ready / record, folder / record)
        remove(ready)


def remove(path: Path) -> None:
    """A file, a link or a whole folder; what is not there, or does not go, is passed over."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # what could not be written need not be removed
            path.unlink()


def provenance(**settings: Any) -> dict[str, Any]:
    """What made a file: software and library versions, date, command line and settings, ready for JSON.

    Parameters
    ----------
    settings
        Anything worth keeping (seed, model hash, source tomogram, options). Paths become strings, NumPy values plain
        numbers and lists.
    """
    return {
        "software": f"tomotwin {__version__}",
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "libraries": {name: version for name in _LIBRARIES if (version := _version_of(name))},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "settings": {name: _plain(value) for name, value in settings.items()},
    }


def fingerprint(**made_of: Any) -> str:
    """16 hexadecimal digits that stand for everything a result depends on: settings, and the bytes of files."""
    digest = hashlib.sha256()
    for name in sorted(made_of):
        value = made_of[name]
        digest.update(name.encode() + b"=")
        digest.update(value if isinstance(value, bytes) else json.dumps(_plain(value), sort_keys=True).encode())
    return digest.hexdigest()[:16]


def _version_of(library: str) -> str | None:
    try:
        return metadata.version(library)  # asks the installer's records: importing torch for this would take seconds
    except metadata.PackageNotFoundError:
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value
