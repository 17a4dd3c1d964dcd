"""Locate targets: all peaks of similarity with their scores, in DIR/TOMOGRAM_peaks.star (voxels of the original
tomogram).

INPUT is an embedded tomogram (.zarr), or a tomogram, which is then embedded while it is searched and nothing of it is
kept. Several are taken in the order of their names; each stands alone, one that fails does not stop the others, and what
an earlier call has finished with the same references and settings is kept.

Targets that have a density (structures, maps; see `tomotwin reference`) are verified: the best peaks of their similarity, and
those of a coarse matching, are matched with the density in all orientations, and the targets compete on that. Their
score is then the correlation, less where the match is unusually strong or faint; they come with orientations, and centres
between voxels. --no-verification leaves it at the similarity.

The column tomotwinFDR is the share of false picks expected if all peaks of its target that score at least as much are
kept; it is there for targets whose scores are calibrated (see `tomotwin reference`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tomotwin_core.cli.inputs import add_inputs, opened_inputs
from tomotwin_core.cli.options import add_region, region_of, use_device

if TYPE_CHECKING:
    from tomotwin_core.picking import LocationSettings
    from tomotwin_core.picking.similarity import Field
    from tomotwin_core.regions import Region, RegionSettings
    from tomotwin_core.tomogram import TomogramSource

HELP = "find the peaks of similarity"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_inputs(parser)
    parser.add_argument("--references", type=Path, required=True, metavar="FILE", help="from `tomotwin reference`")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for TOMOGRAM_peaks.star")
    parser.add_argument(
        "--min-score", type=float, default=0.2, metavar="S", help="peaks of lower similarity are not listed (default: 0.2); verified ones always are"
    )
    parser.add_argument(
        "--separation",
        type=float,
        default=0.6,
        metavar="SHARE",
        help="least distance of two picks of one target, as a share of its diameter (default: 0.6)",
    )
    parser.add_argument(
        "--no-competition", action="store_true", help="let targets share a place instead of giving it to the best"
    )
    parser.add_argument(
        "--background", action="store_true", help="let what background looks like compete for places too"
    )
    parser.add_argument(
        "--no-verification", action="store_true", help="by similarity alone, also where targets have a density"
    )
    add_region(parser)


def run(options: argparse.Namespace) -> None:
    from tomotwin_core.errors import UserError
    from tomotwin_core.picking import LocationSettings

    if not -1 <= options.min_score <= 1:
        raise UserError(f"--min-score {options.min_score:g}: similarities lie within -1 to 1")
    if not 0 < options.separation <= 2:
        raise UserError(f"--separation {options.separation:g}: give a share of the diameter within 0 to 2")
    settings = LocationSettings(
        min_score=options.min_score,
        separation=options.separation,
        competition=not options.no_competition,
        background=options.background,
    )
    failed: list[str] = []
    fields = opened_inputs(options, failed)
    for field in fields:
        try:
            _one(field, settings, options)
        except UserError as error:
            if len(options.inputs) == 1:
                raise
            failed.append(field.tomogram)
            print(f"tomotwin: {field.tomogram}: {error}", file=sys.stderr)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(options.inputs)} tomograms could not be searched ({', '.join(failed)}); see above"
        )


def _one(field: Field, settings: LocationSettings, options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from tomotwin_core.coordinates import write_coordinates
    from tomotwin_core.files import fingerprint
    from tomotwin_core.locks import alone_at
    from tomotwin_core.picking import load_references, locate
    from tomotwin_core.verification import VerificationSettings, locate_verified

    path, regions = options.out / f"{field.tomogram}_peaks.star", region_of(options)
    made_of = fingerprint(
        references=options.references.read_bytes() if options.references.is_file() else b"",
        field={
            "name": field.tomogram,
            "shape": field.tomogram_shape,
            "voxel_size_A": field.voxel_size_A,
            **_origin(field),
        },
        location=asdict(settings),
        region=regions.as_dict(),
        verification=None if options.no_verification else asdict(VerificationSettings()),
    )
    with alone_at(path):
        if path.is_file() and made_of in path.read_text(encoding="utf-8", errors="replace"):
            print(f"{path}: located already with these settings")
            return
        region = _region(field, regions)
        references = load_references(options.references)
        source = None if options.no_verification or not references.densities else _source(field, "verification looks")
        if source is None:
            peaks = locate(field, references, settings, region)
        else:
            peaks = locate_verified(field, source, references, settings, None, region, use_device(options))
        write_coordinates(
            path,
            peaks,
            model_hash=field.model_hash,
            references=str(options.references),
            region=regions.as_dict(),
            made_of=made_of,
        )
    where = f" in {region.described()}" if region is not None else ""
    print(f"{path}: {len(peaks)} peaks{where}")


def _origin(field: Field) -> dict[str, object]:
    """What tells one state of a tomogram from another of the same name."""
    from tomotwin_core.embedding import EmbeddingField
    from tomotwin_core.files import content_of

    if isinstance(field, EmbeddingField):
        attributes = field.attributes
        content = attributes.get("source_content", attributes.get("source_modified"))
        return {"source_content": content, "model_hash": field.model_hash, "contrast": attributes.get("contrast")}
    return {
        "source_content": content_of(field.source.path),
        "model_hash": field.model_hash,
        "contrast": field.contrast,
    }


def _region(field: Field, settings: RegionSettings) -> Region | None:
    from tomotwin_core.regions import find_region, named_region

    if settings.is_everything:
        return None
    if not settings.finds_something:
        return named_region(field.tomogram, field.tomogram_shape, field.voxel_size_A, settings)
    source = _source(field, "--auto-slab, --exclude-gold and --exclude-carbon look", "give a --mask")
    return find_region(source, settings, field.contrast)


def _source(field: Field, looks: str, instead: str = "give --no-verification") -> TomogramSource:
    """The tomogram of a field; UserError where it is not there."""
    from tomotwin_core.embedding import EmbeddingField
    from tomotwin_core.errors import UserError
    from tomotwin_core.tomogram import open_tomogram

    if not isinstance(field, EmbeddingField):
        return field.source
    source = Path(field.attributes["source"])
    if not source.is_file():
        raise UserError(
            f"{source}: the tomogram of {field.path} is not there, and {looks} at it; put it back, or {instead}"
        )
    return open_tomogram(source, field.voxel_size_A)
