"""A training run put together from its settings: source, start, validation, trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tomotwin_core.errors import UserError
from tomotwin_core.model import EmbeddingNetwork, load_model
from tomotwin_core.model.widening import settings_for_start, widened
from tomotwin_core.structures.library import DensityLibrary, load_library
from tomotwin_core.toml_settings import write_settings
from tomotwin_core.training.distributed import World
from tomotwin_core.training.settings import TrainingPlan
from tomotwin_core.training.sources import make_source
from tomotwin_core.training.trainer import Trainer, Validator
from tomotwin_core.training.validation import open_validation, simulate_validation, validate


def prepare(
    out: Path,
    plan: TrainingPlan,
    library_file: Path | None = None,
    start: str | None = None,
    device: str = "cpu",
    world: World | None = None,
    shared: Path | None = None,
) -> Trainer:
    """A trainer ready to run.

    Validation tomograms and normalised ones go to `shared`, by default the run's own folder. The process that writes
    makes them while the others wait. A start brings its own network's shape, widened where other settings
    than the default ones are wider.
    """
    world, shared = world or World(), shared or out
    model = load_model(start) if start else None
    if model:
        plan = replace(plan, network=settings_for_start(model.network.settings, plan.network))
    if not world.writes:
        world.wait()
    library = load_library(library_file)
    source = make_source(plan, library, shared / "cache", device)
    trained = sorted({*source.species, *(model.card.get("training", {}).get("species_trained", []) if model else [])})
    validator = _validator(shared, plan, library, trained, device) if world.writes else None
    if world.writes:
        world.wait()
    held_out = [i for i in library.ids("heldout") if i not in trained]
    network = widened(model.network, plan.network, plan.training.seed) if model else None
    trainer = Trainer(out, plan, source, network, device, world, validator, held_out)
    if world.writes:  # now that they fit the state in the folder: else they would describe a run that they are not of
        write_settings(out / "settings.toml", plan, "Settings of this run: `tomotwin train settings.toml --out DIR`.")
    return trainer


def _validator(
    out: Path, plan: TrainingPlan, library: DensityLibrary, trained: list[str], device: str
) -> Validator | None:
    """Validation as the settings want it; None where it is off, or where no tomograms for it are given and the species
    trained on are none of the library's, so that none can be simulated."""
    settings = plan.validation
    if not settings.every or not (settings.folder or set(trained) & set(library.entries)):
        return None
    folder = Path(settings.folder) if settings.folder else out / "validation"
    if not settings.folder or not list(folder.glob("*_truth.star")):
        simulate_validation(folder, library, trained, settings, device)
    tomograms = open_validation(folder, out / "cache")
    masses = {i: e.mass_kDa for i, e in library.entries.items()}
    if not any(set(map(str, t.truth.label)) & set(trained) for t in tomograms):
        raise UserError(
            f"{folder}: holds none of the species trained on; the best model is chosen by them, give others"
        )

    def validated(network: EmbeddingNetwork) -> list[dict[str, Any]]:
        return validate(network, tomograms, trained, settings.examples, masses, device)

    return validated
