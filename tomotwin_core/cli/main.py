"""Entry point of `tomotwin`.

Subcommands import what they need when they run, so that `tomotwin --help` answers at once and needs no torch.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from tomotwin_core import __version__
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 for bad input, told in one sentence on standard error."""
    # Scipion's own Python may be older, and has this command with the plugin.
    if sys.version_info < (3, 11):  # noqa: UP036
        print(
            f"tomotwin: error: the engine needs Python 3.11 or later, and {sys.executable} is older: "
            "'scipion installb tomotwin_engine' makes it an environment of its own",
            file=sys.stderr,
        )
        return 2
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"tomotwin: error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tomotwin"):
            raise
        print(
            f"tomotwin: error: {error.name} is not installed for {sys.executable}: pip install 'tomotwin-scipion[engine]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("tomotwin: interrupted; what was complete is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
