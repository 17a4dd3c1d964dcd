"""Embed tomograms: every second voxel at 10 A becomes 32 numbers, in DIR/NAME.zarr.

Any voxel size from 1 to 45 A is brought to the model's 10 A on the way. A tomogram that is already embedded with the
same model is left alone, so an interrupted run goes on; one that cannot be embedded does not stop the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tomotwin_core.cli.options import (
    add_device,
    add_voxel_size,
    require_distinct,
    require_none_failed,
    told,
    use_device,
)

HELP = "turn tomograms into embeddings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tomograms", nargs="+", type=Path, metavar="TOMOGRAM", help=".mrc, .rec, .map, .mrc.gz or .tif")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the embeddings")
    parser.add_argument("--model", default="released", metavar="FILE", help="model file, or released (default)")
    add_voxel_size(parser, "the tomograms")
    parser.add_argument(
        "--contrast", choices=("dark", "bright"), default="dark", help="of protein in the tomograms (default: dark)"
    )
    parser.add_argument(
        "--precision", choices=("auto", "float32", "bfloat16"), default="auto",
        help="auto (default): bfloat16 on processors with instructions for it, some three times as fast and no worse; else float32",
    )  # fmt: skip
    add_device(parser)


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.embedding import embed_to_disk
    from tomotwin_core.errors import UserError
    from tomotwin_core.model import load_model
    from tomotwin_core.tomogram import open_tomogram, tomogram_name

    sources, failed = [], []
    for path in options.tomograms:
        # One that cannot be embedded does not stop the others.
        try:
            sources.append(open_tomogram(path, options.voxel_size))
        except UserError as error:
            failed.append(told(tomogram_name(path), error, len(options.tomograms)))
    require_distinct([source.name for source in sources], "tomograms")
    model, device = load_model(options.model), use_device(options)
    for source in sorted(sources, key=lambda s: s.name):
        try:
            field = embed_to_disk(
                source,
                model,
                options.out / f"{source.name}.zarr",
                options.contrast,
                device,
                precision=options.precision,
            )
        except UserError as error:
            failed.append(told(source.name, error, len(options.tomograms)))
            continue
        print(f"{field.path}: {' x '.join(map(str, field.shape))} embeddings, one every {field.spacing_A:g} A")
        if field.unusual:
            print(f"{field.tomogram} is {field.unusual}")
    require_none_failed(failed, len(options.tomograms), "embedded")
