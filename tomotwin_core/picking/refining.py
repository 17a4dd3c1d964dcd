"""Few-shot refinement: a reference fitted anew from picks that a person accepted and rejected, in seconds.

In the whitened space a target is a direction w, its prototype. Logistic regression of accepted against rejected picks on
the cosine with w, held near the old prototype by a Gaussian prior (maximum a posteriori), turns it towards what the
accepted have in common and away from the rejected: with few examples it stays close to where it was, with many the
examples decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize

from tomotwin_core.coordinates import ACCEPTED, REJECTED, UNDECIDED, Coordinates
from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.errors import UserError
from tomotwin_core.evaluation import tolerance_A
from tomotwin_core.picking.discovery import Z_GRID, Calibration, fisher_z
from tomotwin_core.picking.examples import agreeing
from tomotwin_core.picking.references import ReferenceSet, Target, require_same_model

# Cosines differ by tenths where log odds differ by ones.
_SHARPNESS = 12.0
# Of the prior, in examples: so many speak as loudly as the old prototype.
_PRIOR = 2.0


def refined(
    references: ReferenceSet, decided: Sequence[tuple[EmbeddingField, Coordinates]], prior: float = _PRIOR
) -> ReferenceSet:
    """The references with every target refitted that has accepted or rejected picks.

    decided : embedded tomograms with positions whose `accepted` says what was decided; labels name the targets, and
    positions without a label belong to the only target.  prior : weight of the old prototype, in examples.

    Raises UserError for positions of no target, outside the tomogram, or where nothing was decided.
    """
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    samples = []
    for field, table in decided:
        require_same_model(references, field.model_hash, str(field.path))
        samples.append(field.sample())
        table = table.to_voxel_size(field.voxel_size_A)
        if table.accepted is None:
            raise UserError(
                f"the picks of {table.tomogram} say nothing of accepted or rejected; give --accepted or --rejected"
            )
        table = table.select(table.accepted != UNDECIDED)
        if not len(table):
            continue
        if ((table.xyz < -0.5) | (table.xyz > np.array(field.tomogram_shape[::-1]) - 0.5)).any():
            raise UserError(f"some decided picks lie outside {field.tomogram}; are they in its voxels?")
        embeddings = references.space.transform(field.at(table.xyz))
        for label in np.unique(table.label):
            own = table.label == label
            assert table.accepted is not None
            found.setdefault(_named(str(label), references), []).append((embeddings[own], table.accepted[own]))
    if not found:
        raise UserError("no pick was accepted or rejected; decide on some first")
    everything = references.space.transform(np.concatenate(samples))
    targets = []
    for target in references.targets:
        if target.name not in found:
            targets.append(target)
            continue
        embeddings, decision = (np.concatenate(parts) for parts in zip(*found[target.name], strict=True))
        targets.append(_refitted(target, embeddings, decision, everything, prior))
    return replace(references, targets=tuple(targets))


def corrections(picks: Coordinates, corrected: Coordinates) -> Coordinates:
    """What a corrected set says of the picks it came from: what it holds is accepted, what is missing from it rejected.

    A pick is the same as a corrected one of its label (or of none) within half the particle's radius.
    """
    corrected = corrected.to_voxel_size(picks.voxel_size_A, picks.shape)
    missing = np.ones(len(picks), bool)
    for i, (place, label) in enumerate(zip(picks.xyz, picks.label, strict=True)):
        same = corrected.xyz[(corrected.label == label) | (corrected.label == "")]
        limit = tolerance_A(float(picks.diameter_A[i])) / picks.voxel_size_A
        missing[i] = not len(same) or np.linalg.norm(same - place, axis=1).min() > limit
    rejected = picks.select(missing)
    return Coordinates.concatenate(
        [
            replace(corrected, accepted=np.full(len(corrected), ACCEPTED, np.int8)),
            replace(rejected, accepted=np.full(len(rejected), REJECTED, np.int8)),
        ]
    )


def _named(label: str, references: ReferenceSet) -> str:
    if label in references.names:
        return label
    if not label and len(references.targets) == 1:
        return references.names[0]
    raise UserError(
        f"picks of {label or 'no named target'} were decided on, which is none of the references ({', '.join(references.names)})"
    )


def _refitted(
    target: Target, embeddings: np.ndarray, decision: np.ndarray, everything: np.ndarray, prior: float
) -> Target:
    accepted, rejected = agreeing(embeddings[decision == ACCEPTED]), embeddings[decision == REJECTED]
    examples = np.concatenate([accepted, rejected])
    sign = np.where(np.arange(len(examples)) < len(accepted), 1.0, -1.0)
    # Each example belongs to the prototype that it is nearest to; the prototypes keep their views apart.
    nearest = (examples @ target.prototypes.T).argmax(1)
    prototypes = np.stack(
        [
            _direction(p, examples[nearest == k], sign[nearest == k], prior) if (nearest == k).any() else p
            for k, p in enumerate(target.prototypes)
        ]
    ).astype(np.float32)
    refitted = replace(target, prototypes=prototypes, threshold=float("nan"))
    if target.calibration is None:
        return refitted
    before, after = ((everything @ t.prototypes.T).max(1) for t in (target, refitted))
    return replace(refitted, calibration=_moved(target.calibration, before, after))


def _direction(old: np.ndarray, examples: np.ndarray, sign: np.ndarray, prior: float) -> np.ndarray:
    """The unit vector that maximises the posterior; `sign` +1 accepted, -1 rejected. Where nothing was rejected there is
    nothing to turn away from: then it is the mean of the accepted and the old one."""
    if (sign > 0).all():
        mean = prior * old + examples.sum(0)
        return np.asarray(mean / np.linalg.norm(mean))
    cosine = examples @ old
    start = np.append(old, np.median(cosine))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        w, offset = parameters[:-1], parameters[-1]
        margin = sign * _SHARPNESS * (examples @ w - offset)
        wrong = 1 / (1 + np.exp(np.clip(margin, -500, 500)))
        pull = _SHARPNESS * prior / 2
        value = np.logaddexp(0, -margin).sum() + pull * ((w - old) ** 2).sum() + (offset - start[-1]) ** 2
        slope = -_SHARPNESS * sign * wrong
        gradient = np.append(slope @ examples + 2 * pull * (w - old), -slope.sum() + 2 * (offset - start[-1]))
        return float(value), gradient

    w = minimize(loss, start, jac=True, method="L-BFGS-B").x[:-1]
    return np.asarray(w / np.linalg.norm(w))


def _moved(calibration: Calibration, before: np.ndarray, after: np.ndarray) -> Calibration:
    """The same densities on the scale of the new scores: those of all places in the tomograms, before and after, tell how
    the scale has moved (quantile by quantile, going on straight beyond them)."""
    steps = np.linspace(0.01, 0.999, 60)
    old, new = np.quantile(fisher_z(before), steps), np.quantile(fisher_z(after), steps)
    slope = (old[-1] - old[-10]) / max(new[-1] - new[-10], 1e-6)
    source = np.interp(Z_GRID, new, old)
    source = np.where(new[-1] < Z_GRID, old[-1] + slope * (Z_GRID - new[-1]), source)
    source = np.where(new[0] > Z_GRID, old[0] + (Z_GRID - new[0]), source)
    stretch = np.gradient(source, Z_GRID)
    right, wrong = (
        (np.interp(source, Z_GRID, density, left=0, right=0) * stretch).astype(np.float32)
        for density in (calibration.right, calibration.wrong)
    )
    return replace(calibration, right=right, wrong=wrong)
