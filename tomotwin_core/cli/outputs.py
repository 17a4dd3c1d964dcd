"""Who writes what: a command holds the lock of the files that its options name for as long as it runs.

Commands that write by the names of tomograms hold the locks of those files themselves, since several of them fill one folder side
by side; so do those that write a folder, or for hours.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

# Options that name one file each, by command.
_FILES: dict[str, tuple[str, ...]] = {
    "simulate": ("write_settings",),
    "train": ("write_settings",),
    "reference": ("out",),
    "mask": ("out",),
    "pick": ("summary", "curves", "contact_sheet"),
    "orient": ("summary",),
    "evaluate": ("out", "by_tomogram", "curves", "matches", "plot", "picture"),
}
# Options that name a folder which one run fills.
_FOLDERS: dict[str, tuple[str, ...]] = {"extract": ("out",)}


@contextmanager
def alone_with_outputs(options: argparse.Namespace) -> Iterator[None]:
    """Hold the locks of what a command's options say that it writes; UserError where another run holds one of them."""
    files, folders = (_given(options, named) for named in (_FILES, _FOLDERS))
    if not files + folders:  # so that what writes nothing imports nothing
        yield
        return
    from tomotwin_core.locks import alone_at_all, alone_in

    with ExitStack() as stack:
        stack.enter_context(alone_at_all(files))
        for folder in folders:
            stack.enter_context(alone_in(folder))
        yield


def _given(options: argparse.Namespace, named: dict[str, tuple[str, ...]]) -> list[Path]:
    found = [getattr(options, name) for name in named.get(options.command, ())]
    if options.command == "view" and options.apply and named is _FILES:  # in its window a person decides what is saved, and when
        found.append(options.out)
    return [Path(path) for path in found if path]
