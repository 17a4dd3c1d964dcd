"""What the system refuses, in words: no memory, no room, no permission, no process, a stream that is closed.

One place for all commands. What is refused to who writes a result is told by who writes it (files.py), which knows the result;
what comes here is the rest, and becomes one sentence too. Everything else stays a mistake of ours, with its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TextIO

_SAID = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room within the quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or choose another place",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "choose a place that can be written to",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or give fewer files at once",
    errno.ENFILE: "close other programs, or give fewer files at once",
    errno.ENOENT: "check the path; has it been moved or removed meanwhile?",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EIO: "the disk or the network fails; try again, or another place",
    errno.ESTALE: "the network's file system has lost it; try again",
    errno.EISDIR: "give a file, not a folder",
    errno.ENOTDIR: "a file lies where a folder should be; choose another place",
}
_MEMORY = "there is not enough memory for this: give it more, or smaller or fewer files at once"
_PROCESSES = "the system allows no more threads or processes: raise the limit (ulimit -u), or give fewer --threads"
# What torch, numpy and the loaders of safetensors say in a RuntimeError.
_OF_MEMORY = ("can't allocate memory", "cannot allocate memory", "out of memory", "unable to mmap", "std::bad_alloc")


def refusal(error: BaseException) -> str | None:
    """One sentence for what is the system's refusal; None for what is none."""
    if isinstance(error, MemoryError) or _is_about_memory(error):
        return f"{_MEMORY} ({_first_line(error)})" if str(error) else _MEMORY
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return _PROCESSES
    if isinstance(error, UnicodeEncodeError):
        part = error.object[error.start : error.end][:20]
        return f"{part!a} cannot be written as {error.encoding}: give names in UTF-8"
    if isinstance(error, RecursionError):
        return "something that was read nests too deep: give another file"
    if isinstance(error, BlockingIOError) and error.errno == errno.EAGAIN:  # what fork says
        return _PROCESSES
    if isinstance(error, OSError):
        return _of_the_system(error)
    return None


def _of_the_system(error: OSError) -> str:
    about = error.filename2 or error.filename
    reason = error.strerror or _first_line(error) or type(error).__name__
    if about is None and error.errno == errno.ENOENT:
        return "the folder that this was called in is not there any more: change to another one"
    hint = _SAID.get(error.errno or 0, "try again, or elsewhere")
    named = f"{os.fsdecode(about)!a}" if isinstance(about, bytes) else str(about)
    return f"{named}: {reason}; {hint}" if about is not None else f"the system refused ({reason}): {hint}"


def _is_about_memory(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    told = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in told for words in _OF_MEMORY)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:150]


def open_streams() -> None:
    """Standard streams that were closed become ones that lead nowhere, before a file takes their number and gets what
    libraries print; and what they cannot show is shown by its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        stream: TextIO | None = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """To the standard error stream, if it can be written to."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        silence("stderr")


def silence(name: str) -> None:
    """Lead a stream nowhere, so that Python does not fail at its end for what could not be written to it."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), getattr(sys, name).fileno())
    except (OSError, ValueError, AttributeError):  # a stream of a test, or one that is closed
        return
