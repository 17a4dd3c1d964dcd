"""What `locate` and `map` look at: embedded tomograms, or tomograms that are embedded while they are looked at."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tomotwin_core.cli.options import add_contrast, add_device, add_voxel_size, require_distinct, use_device

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


def opened_inputs(options: argparse.Namespace) -> list[Field]:
    """All of them in the order of their names; UserError for two of one name."""
    from tomotwin_core.embedding import open_field
    from tomotwin_core.embedding.live import LiveField
    from tomotwin_core.model import load_model
    from tomotwin_core.tomogram import open_tomogram

    stored = [path for path in options.inputs if path.is_dir() or path.suffix == ".zarr"]
    fields: list[Field] = [open_field(path) for path in stored]
    raw = [path for path in options.inputs if path not in stored]
    if raw:
        model, device = load_model(options.model), use_device(options)
        sources = [open_tomogram(path, options.voxel_size) for path in raw]
        fields += [LiveField(source, model, options.contrast, device) for source in sources]
    require_distinct([f.tomogram for f in fields], "inputs")
    return sorted(fields, key=lambda f: f.tomogram)
