"""References from structures or maps: simulate the target, look at it through the network.

All targets are simulated together, in a crowd of other molecules, in several small tomograms taken as the user's were.
The embeddings at the true centres make the prototypes, and with those of the crowd and of the background between the
space in which similarity is measured. Then each of these tomograms is picked with references made from the others, and
the score that gives the best F1 over all of them is the threshold proposed. No tomogram of the user takes part, so
nothing is tuned on what is picked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from tomotwin_core.errors import UserError
from tomotwin_core.model import Model
from tomotwin_core.picking.discovery import Calibration
from tomotwin_core.picking.location import LocationSettings
from tomotwin_core.picking.references import ReferenceSet, Target, background_prototypes, prototypes_of
from tomotwin_core.picking.simulated import (
    ReferenceSettings,
    Seen,
    examples_of,
    judged_peaks,
    simulated_world,
    space_of,
)
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.structures.density import Density


def references_from_densities(
    densities: Mapping[str, Density],
    model: Model,
    acquisition: Acquisition,
    settings: ReferenceSettings | None = None,
    device: str = "cpu",
    origins: Mapping[str, str] | None = None,
    seen: Sequence[Seen] | None = None,
) -> ReferenceSet:
    """Targets with prototypes, proposed thresholds and calibrated scores from densities by name, as they look under
    `acquisition`.

    seen : the simulated tomograms that hold them, where these are there already (`simulated_world`).
    """
    settings = settings or ReferenceSettings()
    if seen is None:
        seen = simulated_world(densities, model, acquisition, settings, device)
    for name in densities:
        if sum(int((s.label == name).sum()) for s in seen) < 3:
            raise UserError(
                f"{name}: could not be placed in a simulated tomogram; is the density that of one molecule of 20 to 300 A?"
            )
    blank = ReferenceSet(
        tuple(
            Target(n, np.zeros((1, 1)), d.diameter_A, origin=(origins or {}).get(n, ""), density=d)
            for n, d in densities.items()
        ),
        model.hash,
        {"acquisition": asdict(acquisition), "reference": asdict(settings)},
    )
    return _with_prototypes(_calibrated(blank, seen, settings), seen, settings)


def _with_prototypes(references: ReferenceSet, seen: Sequence[Seen], settings: ReferenceSettings) -> ReferenceSet:
    """The same targets with the space and the prototypes that these tomograms give."""
    embeddings, label = examples_of(seen)
    space = space_of(seen)
    moved = space.transform(embeddings)
    targets = []
    for target in references.targets:
        own = moved[label == target.name]
        # A target that one fold lacks altogether matches nothing there.
        prototypes = prototypes_of(own, settings.prototypes, settings.seed) if len(own) else -moved[:1]
        targets.append(replace(target, prototypes=prototypes))
    background = background_prototypes(space.transform(np.concatenate([s.background for s in seen])), settings.seed)
    return replace(references, targets=tuple(targets), space=space, background=background)


def _calibrated(references: ReferenceSet, seen: Sequence[Seen], settings: ReferenceSettings) -> ReferenceSet:
    """Learn how scores of right and wrong peaks are spread, and which score gives the best F1, over all tomograms, each
    picked with references made from the others."""
    location = LocationSettings(min_score=-1.0)
    folds = [
        judged_peaks(_with_prototypes(references, [*seen[:i], *seen[i + 1 :]], settings), left_out, location)
        for i, left_out in enumerate(seen)
    ]
    targets = []
    for index, target in enumerate(references.targets):
        scores, right = (np.concatenate([fold[index][part] for fold in folds]) for part in (0, 1))
        true = sum(int((s.tomogram.truth.label == target.name).sum()) for s in seen)
        threshold = _best_f1_score(right, scores, true)
        targets.append(replace(target, threshold=threshold, calibration=Calibration.fitted(scores, right)))
    return replace(references, targets=tuple(targets))


def _best_f1_score(right: np.ndarray, scores: np.ndarray, n_true: int) -> float:
    """The threshold of the best F1, half-way to the next lower score, so that it does not sit on one pick."""
    if not right.any():
        return float("nan")
    order = np.argsort(-scores)
    hits = np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + n_true)
    best = int(f1.argmax())
    following = scores[order][min(best + 1, len(order) - 1)]
    return float((scores[order][best] + following) / 2)
