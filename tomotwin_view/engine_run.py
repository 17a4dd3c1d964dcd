"""The engine's command beside a window: started, watched without waiting, stopped when the window goes.

What it prints is kept in a file, whose last line says how far it is, or what went wrong: the engine tells that in one sentence.
"""

import os
import subprocess
from typing import Optional, Sequence


class EngineRun:
    """A running command.

    Parameters
    ----------
    words : sequence of str
        The command line.
    log : str
        File that takes all that it prints.
    """

    def __init__(self, words: Sequence[str], log: str) -> None:
        self._log = log
        with open(log, "wb") as file:
            # In a session of its own, so that stopping it stops what a shell before it has started, too.
            self._process = subprocess.Popen(
                list(words), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def code(self) -> Optional[int]:
        """The exit code; None as long as it runs."""
        return self._process.poll()

    def last_line(self) -> str:
        """The last that it printed; of a progress bar its latest state."""
        with open(self._log, "rb") as file:
            file.seek(max(os.path.getsize(self._log) - 2000, 0))
            lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def stop(self) -> None:
        """End it, if it still runs."""
        if self.code is None:
            os.killpg(self._process.pid, 15)
            self._process.wait()
