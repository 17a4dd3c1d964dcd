"""What the engine says when it fails, as the error of the run.

Scipion tells of a command that failed only its exit status. So what a command writes to standard error is kept beside the
log (keep_errors.sh), and its sentence is what the user reads in the summary and the project window.
"""

import os
import re
import signal
from typing import Optional

from pyworkflow.exceptions import PyworkflowException

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keep_errors.sh")

_SENTENCE = re.compile(r"^tomotwin(?: \w+)*: error: (.+)$")


class TwinError(PyworkflowException):
    """A run or tomogram that failed, told in a sentence; Scipion shows it without a traceback."""


def sentence_of(path: str) -> Optional[str]:
    """The engine's last sentence about bad input in what it wrote to standard error; None where there is none."""
    found = [match.group(1).strip() for match in map(_SENTENCE.match, _lines(path)) if match]
    return found[-1] if found else None


def reason_of(command: str, status: int, path: str) -> str:
    """Why a command failed, in one sentence.

    Parameters
    ----------
    command
        Subcommand of the engine.
    status
        Its exit status, as a shell says it.
    path
        What it wrote to standard error.
    """
    sentence = sentence_of(path)
    if sentence is not None:
        return sentence
    number = -status if status < 0 else status - 128  # of a shell's own end, and of a command that a shell ran
    if 0 < number < 65:
        hint = " (often for want of memory)" if number == signal.SIGKILL else ""
        return f"tomotwin {command} was ended by signal {number}{hint}; Continue goes on where it was."
    lines = [line for line in _lines(path) if line.strip()]
    last = f": {lines[-1].strip()}" if lines else ""
    return f"tomotwin {command} failed with exit status {status}{last} (see the log of the run)."


def _lines(path: str) -> list:
    """Lines of a file, those too that progress bars have written over."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8", errors="replace") as file:
        return re.split(r"[\r\n]+", file.read())
