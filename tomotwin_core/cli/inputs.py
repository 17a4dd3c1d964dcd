"""What `locate` and `map` look at: embedded tomograms, or tomograms that are embedded while they are looked at."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tomotwin_core.cli.options import add_contrast, add_device, add_voxel_size, require_distinct, told, use_device

if TYPE_CHECKING:
    from tomotwin_core.picking.similarity import Field


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """The inputs, and what tomograms need that are not embedded yet."""
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="embedded tomograms, or tomograms")
    group = parser.add_argument_group("tomograms that are not embedded yet")
    group.add_argument("--model", default="released", metavar="FILE", help="model file, or released (default)")
    add_voxel_size(parser, "the tomograms")
    add_contrast(parser)
    add_device(parser)


def opened_inputs(options: argparse.Namespace, failed: list[str] | None = None) -> list[Field]:
    """All of them in the order of their names; UserError for two of one name.

    failed : where the names of those go that cannot be opened, which are told; without it the first of them is an error.
    """
    from tomotwin_core.embedding import open_field
    from tomotwin_core.embedding.live import LiveField
    from tomotwin_core.errors import UserError
    from tomotwin_core.model import load_model
    from tomotwin_core.tomogram import open_tomogram, tomogram_name

    def each(paths: list[Path], opened: Callable[[Path], Field]) -> Iterator[Field]:
        for path in paths:
            try:
                yield opened(path)
            except UserError as error:
                if failed is None:
                    raise
                failed.append(told(tomogram_name(path), error, len(options.inputs)))

    stored = [path for path in options.inputs if path.is_dir() or path.suffix == ".zarr"]
    raw = [path for path in options.inputs if path not in stored]
    fields = list(each(stored, open_field))
    if raw:
        model, device = load_model(options.model), use_device(options)
        fields += each(
            raw, lambda path: LiveField(open_tomogram(path, options.voxel_size), model, options.contrast, device)
        )
    require_distinct([f.tomogram for f in fields], "inputs")
    return sorted(fields, key=lambda f: f.tomogram)
