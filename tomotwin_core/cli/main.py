"""Entry point of `tomotwin`.

Subcommands import what they need when they run, so that `tomotwin --help` answers at once and needs no torch.
"""

from __future__ import annotations

import argparse
import importlib
import locale
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from tomotwin_core import __version__
from tomotwin_core.cli.given import require_sense
from tomotwin_core.cli.outputs import alone_with_outputs
from tomotwin_core.cli.refusals import open_streams, refusal, say, silence
from tomotwin_core.errors import UserError

COMMANDS = (
    "simulate", "library", "train", "tune", "adapt", "embed", "mask", "reference", "map", "locate", "pick", "cluster",
    "refine", "orient", "extract", "convert", "evaluate", "view", "info",
)  # fmt: skip

_DESCRIPTION = """Find macromolecules in cryo-electron tomograms by what they look like to a network that was trained once, on many.

the way from a tomogram to picks:
  tomotwin embed tomo.mrc --out emb                                    each place becomes 32 numbers
  tomotwin reference ribosome.cif --out refs.safetensors               the target becomes 32 numbers
  tomotwin locate emb/tomo.zarr --references refs.safetensors --out .  where they agree
  tomotwin pick tomo_peaks.star --references refs.safetensors --out .  where they agree well enough
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    parser = argparse.ArgumentParser(
        prog="tomotwin", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"tomotwin {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"tomotwin_core.cli.{name}")
        sub = commands.add_parser(
            name, help=module.HELP, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


class Ended(BaseException):
    """Somebody ended the process by a signal; what is half written is removed on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 for bad input and for what the system refuses, told in one sentence
    on standard error; 130 after Ctrl-C, and 128 and its number for another signal."""
    # Scipion's own Python may be older, and has this command with the plugin.
    if sys.version_info < (3, 11):  # noqa: UP036
        print(
            f"tomotwin: error: the engine needs Python 3.11 or later, and {sys.executable} is older: "
            "'scipion installb tomotwin_engine' makes it an environment of its own",
            file=sys.stderr,
        )
        return 2
    open_streams()
    if arguments is None:
        _in_utf8()
    try:
        with _heeding_signals():
            os.getcwd()  # where it is gone, libraries die of it without a word to be understood
            _allow_many_files()
            options = build_parser().parse_args(arguments)
            require_sense(options)
            with alone_with_outputs(options):
                options.run(options)
            sys.stdout.flush()
    except UserError as error:
        say("tomotwin: error: " + str(error).replace("\n", " "))
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tomotwin"):
            raise
        say(f"tomotwin: error: {error.name} is not installed for {sys.executable}: pip install 'tomotwin-scipion[engine]'")
        return 2
    except KeyboardInterrupt:
        say("tomotwin: interrupted; what was complete is kept")
        return 130
    except Ended as end:
        say(f"tomotwin: ended by {signal.Signals(end.number).name}; what was complete is kept")
        return 128 + end.number
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        silence("stdout")
        return 0
    except Exception as error:
        sentence = refusal(error)
        if sentence is None:
            raise
        say(f"tomotwin: error: {sentence}")
        silence("stdout")  # where it is what could not be written to, Python would fail again at its end
        return 2
    return 0


@contextmanager
def _heeding_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP, by which queues and terminals end a process, end it as Ctrl-C does: what is half written is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    # Not one that somebody (nohup) wants ignored.
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _allow_many_files() -> None:
    """Open files are often limited to 1024 where many more are allowed for the asking."""
    import resource

    with suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
        if soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _in_utf8() -> None:
    """Start again with UTF-8 where the locale has another encoding: names in files are UTF-8, and a name that this locale lacks
    would be an error after hours of work."""
    if not sys.flags.utf8_mode and locale.getpreferredencoding(False).lower().replace("-", "") != "utf8":
        os.environ["PYTHONUTF8"] = "1"
        with suppress(OSError):
            os.execv(sys.executable, [sys.executable, "-m", "tomotwin_core.cli.main", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
