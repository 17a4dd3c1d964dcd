"""One run at a time on one output.

Two runs that write into one place mix their files, or the later one replaces what the earlier one made, and nobody is told.
So whoever writes for longer than a moment holds a lock on it: `.lock-NAME` beside a file or an embedding, `.lock` in a folder.

The lock is the kernel's (flock): it ends with its process, however that ends, so none is ever stale. Network file systems
hand it on to all machines (NFS since Linux 2.6.12, Lustre and GPFS where they are mounted so); where one has no such locks the
lock is a file with the holder's process and machine in it, which is taken over from a dead process of the same machine.
"""

from __future__ import annotations

import errno
import glob
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from tomotwin_core.errors import UserError
from tomotwin_core.files import remove, require_writable

# File systems without flock say one of these.
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
# A lock that is being given back may be refused for a moment.
_PATIENCE_S = 0.5


@contextmanager
def alone_at(output: Path, patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Hold the lock of a file or of a folder that is written as a whole (NAME.zarr); what killed runs left of it is removed.

    Raises
    ------
    UserError
        Where another run holds it, or the place cannot be written to.
    """
    with _held(output.with_name(f".lock-{output.name}"), output, patience_s):
        clear_leftovers(output.parent, glob.escape(output.name))
        yield


@contextmanager
def alone_at_all(outputs: Iterable[Path]) -> Iterator[None]:
    """Hold the locks of several files at once, or of none: in the order of their names, so that two runs do not wait for each other."""
    with ExitStack() as stack:
        for output in sorted(set(outputs)):
            stack.enter_context(alone_at(output))
        yield


@contextmanager
def alone_in(folder: Path, owns: tuple[str, ...] = ()) -> Iterator[None]:
    """Hold the lock of a folder that one run fills; the folder is made.

    owns : patterns of the names of its files, whose unfinished ones of killed runs are removed.
    """
    with _held(folder / ".lock", folder, _PATIENCE_S):
        clear_leftovers(folder, *owns)
        yield


def clear_leftovers(folder: Path, *names: str) -> None:
    """Remove what killed runs left of files with such names (patterns) in a folder; only for who holds their lock."""
    for pattern in names:
        below, _, name = pattern.rpartition("/")
        for kind in ("part", "old"):
            for left in (folder / below).glob(f".{kind}-{'[0-9a-f]' * 8}-{name}"):
                remove(left)


@contextmanager
def _held(file: Path, output: Path, patience_s: float) -> Iterator[None]:
    with require_writable(output):
        made = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquired(file, output, patience_s)
    failed = False
    try:
        yield
    except BaseException:
        failed = True
        raise
    finally:
        if not isinstance(lock, SoftFileLock):
            with suppress(OSError):  # while it is held: who waits for it sees that it is gone, and makes another
                file.unlink()
        lock.release()
        with suppress(OSError):  # a call that failed leaves no empty folder either
            for folder in made if failed else ():
                folder.rmdir()


def _acquired(file: Path, output: Path, patience_s: float) -> BaseFileLock:
    lock: BaseFileLock = FileLock(file)
    try:
        try:
            lock.acquire(timeout=patience_s)
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
                raise
            lock = SoftFileLock(file.with_name(file.name + "-holder"))
            lock.acquire(timeout=patience_s)
    except Timeout as error:
        raise UserError(
            f"{output} is being written by another run of tomotwin: wait for its end, or give this one another --out"
        ) from error
    return lock
