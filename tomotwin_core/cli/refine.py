"""Refine references by picks that were accepted or rejected: each target that has some is fitted anew, in seconds.

Say what was decided in any of these ways, for any number of tomograms:
  --decided   tables with the column tomotwinAccepted: 1 accepted, 0 rejected, -1 undecided; or what `tomotwin view` saved
  --accepted, --rejected   tables of positions that are right, and that are wrong
  --picks with --corrected   picks, and the same after someone removed the wrong ones and added missing ones
Each table names its tomogram, whose embedding is given. With --peaks the peaks of the refined references are written too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomotwin_core.cli.options import require_distinct

if TYPE_CHECKING:
    from tomotwin_core.coordinates import Coordinates
    from tomotwin_core.embedding import EmbeddingField

HELP = "refit references to accepted and rejected picks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("embeddings", nargs="+", type=Path, metavar="ZARR", help="embedded tomograms of the picks")
    parser.add_argument("--references", type=Path, required=True, metavar="FILE", help="references to refine")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="references file to write (.safetensors)"
    )
    for name, text in (
        ("decided", "tables with the column tomotwinAccepted"),
        ("accepted", "positions that are right"),
        ("rejected", "positions that are wrong"),
        ("picks", "picks before correction"),
        ("corrected", "the same picks after correction"),
    ):
        parser.add_argument(f"--{name}", type=Path, nargs="+", default=[], metavar="STAR", help=text)
    parser.add_argument(
        "--prior", type=float, default=2.0, metavar="N", help="weight of the old reference, in examples (default: 2)"
    )
    parser.add_argument(
        "--peaks", type=Path, metavar="DIR", help="folder for TOMOGRAM_peaks.star of the new references"
    )


def run(options: argparse.Namespace) -> None:
    import numpy as np

    from tomotwin_core.coordinates import ACCEPTED, REJECTED, write_coordinates
    from tomotwin_core.embedding import open_field
    from tomotwin_core.errors import UserError
    from tomotwin_core.locks import alone_at
    from tomotwin_core.picking import load_references, locate
    from tomotwin_core.picking.refining import refined

    if not 0 < options.prior <= 1000:
        raise UserError(f"--prior {options.prior:g}: give a number of examples above 0, at most 1000")
    if bool(options.picks) != bool(options.corrected):
        raise UserError("--picks and --corrected go together: the picks as they were, and as they should be")
    fields = [open_field(path) for path in options.embeddings]
    require_distinct([f.tomogram for f in fields], "embeddings")
    references = load_references(options.references)
    decided = _decided(options, {f.tomogram: f for f in fields})
    with alone_at(options.out):
        new = refined(references, decided, options.prior)
        new.save(options.out)
    decisions = np.concatenate([np.asarray(table.accepted) for _, table in decided])
    for before, after in zip(references.targets, new.targets, strict=True):
        if before is not after:
            turned = float((before.prototypes * after.prototypes).sum(1).min())
            print(f"{after.name}: refitted, cosine with the old prototype {turned:.3f}")
    print(
        f"{options.out}: from {np.sum(decisions == ACCEPTED)} accepted and {np.sum(decisions == REJECTED)} rejected picks"
    )
    for field in fields if options.peaks else []:
        path = options.peaks / f"{field.tomogram}_peaks.star"
        with alone_at(path):
            peaks = locate(field, new)
            write_coordinates(path, peaks, model_hash=field.model_hash, references=str(options.out))
        print(f"{path}: {len(peaks)} peaks")


def _decided(
    options: argparse.Namespace, fields: dict[str, EmbeddingField]
) -> list[tuple[EmbeddingField, Coordinates]]:
    from dataclasses import replace

    import numpy as np

    from tomotwin_core.coordinates import ACCEPTED, REJECTED
    from tomotwin_core.errors import UserError
    from tomotwin_core.picking.refining import corrections

    found = [(path, table) for path in options.decided for table in _tables(path, fields, decisions=True)]
    for path, table in found:
        if table.accepted is None:
            raise UserError(f"{path}: has no column tomotwinAccepted; give it as --accepted or --rejected")
    for paths, decision in ((options.accepted, ACCEPTED), (options.rejected, REJECTED)):
        for path in paths:
            for table in _tables(path, fields):
                found.append((path, replace(table, accepted=np.full(len(table), decision, np.int8))))
    corrected = {t.tomogram: t for path in options.corrected for t in _tables(path, fields)}
    for path in options.picks:
        for table in _tables(path, fields):
            if table.tomogram not in corrected:
                raise UserError(f"--corrected: has no positions of {table.tomogram}, which {path} has picks of")
            found.append((path, corrections(table, corrected[table.tomogram])))
    if not found:
        raise UserError("nothing was decided: give --decided, --accepted, --rejected, or --picks with --corrected")
    return [(fields[table.tomogram], table) for _, table in found]


def _tables(path: Path, fields: dict[str, EmbeddingField], decisions: bool = False) -> list[Coordinates]:
    from tomotwin_core.coordinates import read_all_coordinates
    from tomotwin_core.coordinates.star import StarFormat
    from tomotwin_core.errors import UserError

    only = next(iter(fields.values())) if len(fields) == 1 else None
    known: tuple[Any, Any, Any] = (
        None,
        {name: field.voxel_size_A for name, field in fields.items()},
        {name: field.tomogram_shape for name, field in fields.items()},
    )
    if only:
        known = only.tomogram, only.voxel_size_A, only.tomogram_shape
    if decisions and path.is_file() and path.suffix.lower() == ".star":
        tables = StarFormat(block="tomotwin_decisions").read(path, *known)
    else:
        tables = read_all_coordinates(path, *known)
    tables = [table for table in tables if len(table)]
    for table in tables:
        if table.tomogram not in fields:
            raise UserError(
                f"{path}: has positions in {table.tomogram}, whose embedding is not given ({', '.join(fields)})"
            )
    return tables
