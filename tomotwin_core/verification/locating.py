"""Locating with verification: what `tomotwin locate` does where targets have densities.

Peaks of the embedding's similarity, without competition, are places to look at; what matching makes of them, and of its own
places, are the targets' peaks. Targets without a density are located by similarity alone, as always; a place that a verified
target most likely occupies is not theirs.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from tomotwin_core.coordinates import Coordinates
from tomotwin_core.picking.location import LocationSettings, locate
from tomotwin_core.picking.references import ReferenceSet
from tomotwin_core.picking.similarity import Field
from tomotwin_core.regions import Region
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.tomogram import TomogramSource
from tomotwin_core.verification.verifying import VerificationSettings, verify

# Verified matches that promise no more than this share of false ones occupy their places.
_SURE = 0.2
_ACQUISITION = {f.name for f in fields(Acquisition)}


def locate_verified(
    field: Field,
    source: TomogramSource,
    references: ReferenceSet,
    location: LocationSettings,
    verification: VerificationSettings | None = None,
    region: Region | None = None,
    device: str = "cpu",
) -> Coordinates:
    """All peaks of all targets in one tomogram, in its voxels, best first; those of targets that have a density are verified.

    source : the tomogram that the field is the embedding of.
    """
    densities = references.densities
    verification = replace(
        verification or VerificationSettings(), separation=location.separation, competition=location.competition
    )
    proposed = locate(field, references, replace(location, competition=False, min_score=-1.0), region)
    verified = verify(
        source, proposed, densities, acquisition_of(references), verification, field.contrast, region, device,
        references.decoys,
    )  # fmt: skip
    size = {t.name: t.diameter_A for t in references.targets}
    verified = replace(verified, diameter_A=np.array([size[str(label)] for label in verified.label], np.float32))
    others = [t.name for t in references.targets if t.name not in densities]
    if not others:
        return verified
    assert verified.fdr is not None
    by_similarity = locate(field, references, location, region)
    by_similarity = by_similarity.select(np.isin(by_similarity.label, others))
    # Where a target that is known by its embedding, too, is verified, similarity has decided between them already.
    structures = [name for name, density in densities.items() if density.told_diameter_A is None]
    sure = verified.select((verified.fdr <= _SURE) & np.isin(verified.label, structures))
    if len(sure) and len(by_similarity):
        distance, nearest = cKDTree(sure.xyz).query(by_similarity.xyz)
        by_similarity = by_similarity.select(distance * verified.voxel_size_A >= 0.5 * sure.diameter_A[nearest])
    both = Coordinates.concatenate([_with_all(verified), _with_all(by_similarity)])
    return both.select(np.argsort(-both.score, kind="stable"))


def acquisition_of(references: ReferenceSet) -> Acquisition:
    """How the tomograms were taken, as the references were made for."""
    known: dict[str, Any] = {k: v for k, v in references.made_by.get("acquisition", {}).items() if k in _ACQUISITION}
    missing = tuple(known.pop("missing_tilts_deg", ()))
    return replace(Acquisition(missing_tilts_deg=missing), **known)


def _with_all(table: Coordinates) -> Coordinates:
    """A table that has orientations and correlations, unknown ones (none, NaN) where it has none."""
    n = len(table)
    rotation = np.tile(np.eye(3), (n, 1, 1)) if table.rotation is None else table.rotation
    correlation = np.full(n, np.nan, np.float32) if table.correlation is None else table.correlation
    fdr = np.full(n, np.nan, np.float32) if table.fdr is None else table.fdr
    return replace(table, rotation=rotation, correlation=correlation, fdr=fdr)
