"""Data sets of simulated tomograms on disk.

    NAME.mrc              the tomogram
    NAME_truth.star       positions, orientations and masses of the molecules in it, and what made it
    NAME.st, NAME.rawtlt, NAME.st.mdoc   its aligned tilt series
    NAME_labels.mrc       what each voxel belongs to; labels.csv says which number is which
    NAME_noisefree.mrc    the tomogram without noise and alignment errors
    references/SPECIES.mrc               the molecules' density maps
    simulation.json       all settings, and how crowded each tomogram became; written last

Tomogram number i depends on the settings, the seed and i alone. Its truth is written after its other files and carries
a fingerprint of all that made it: what is complete and made alike is kept, so an interrupted data set goes on.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomotwin_core import __version__
from tomotwin_core.coordinates import write_coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path, provenance
from tomotwin_core.locks import alone_at, clear_leftovers
from tomotwin_core.progress import note, progress
from tomotwin_core.simulation.delivery import Delivery, deliver
from tomotwin_core.simulation.experiment import Extras, SimulatedTomogram, legend, simulate_tomogram
from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.simulation.randomise import random_experiment
from tomotwin_core.simulation.series_files import series_paths, write_tilt_series
from tomotwin_core.simulation.settings import Experiment
from tomotwin_core.structures import Density, load_density, load_library
from tomotwin_core.structures.density import at_voxel_size
from tomotwin_core.tomogram import resampled_shape, write_mrc
from tomotwin_view.star import read_pairs

# Of a tomogram of so many voxels each stage is told: it takes minutes.
_LARGE_VOXELS = 256**3
# Runs with other numbers enter theirs by turns.
_TURN_S = 60.0


def simulate_dataset(
    out: Path, densities: Mapping[str, Density], experiment: Experiment, device: str = "cpu"
) -> list[Path]:
    """Write all files of a data set (see the module); returns the tomograms' paths.

    densities : the molecules by name.  experiment : the copies are those of its sample (`load_molecules`).
    """
    wanted, settings = experiment.dataset, experiment.sample
    made_by = _made_by(experiment, densities)
    fingerprint = _fingerprint(made_by, densities)
    molecules = Molecules(densities, settings.voxel_size_A)
    numbers = range(wanted.first, wanted.first + wanted.tomograms)
    names = {number: f"{wanted.prefix}_{number:02d}" for number in numbers}
    paths, records = [], {}
    with ExitStack() as stack:
        # All of them for as long as this takes: else another run's settings would meet ours in one data set.
        for name in names.values():
            stack.enter_context(alone_at(out / f"{name}.mrc"))
            clear_leftovers(out, *(path.name for path in _all_files(out, name)))
        if wanted.references:
            _write_references(out, densities, settings.voxel_size_A)
        if wanted.labels:
            _write_legend(out / "labels.csv", densities)
        for number, name in progress(names.items(), desc="simulating", unit="tomograms"):
            files = _files(out, name, experiment)
            record = _record(files["truth"]) if all(path.is_file() for path in files.values()) else {}
            if record.get("simulation") != fingerprint:
                for path in _all_files(out, name):  # of other settings: nothing of it may stand beside the new tomogram
                    path.unlink(missing_ok=True)
                record = _make(out, name, number, experiment, molecules, fingerprint, device)
            paths.append(files["tomogram"])
            records[name] = record
        with alone_at(out / "simulation.json", _TURN_S), atomic_path(out / "simulation.json") as temporary:
            # What calls with other numbers made, before or meanwhile, is still there, and is not forgotten.
            every = dict(sorted({**_earlier(out), **records}.items()))
            text = json.dumps({**made_by, "tomograms": every, **provenance()}, indent=1)
            temporary.write_text(text + "\n", encoding="utf-8")
    return paths


def load_molecules(experiment: Experiment) -> tuple[dict[str, Density], Experiment]:
    """The densities of an experiment's species by name, and the experiment with the copies of each by that name.

    UserError where a species cannot be read, or two of them have one name.
    """
    library = load_library()
    densities: dict[str, Density] = {}
    copies: dict[str, int] = {}
    for species, count in experiment.species.items():
        for source in library.ids("heldout") if species == "all-heldout" else [species]:
            name = Path(source.removeprefix("library:").removeprefix("pdb:")).name.split(".")[0]
            if name in densities:
                raise UserError(f"{source}: two species are called {name}; name each once, and files differently")
            densities[name] = load_density(f"library:{source}" if source in library.entries else source)
            copies[name] = count
    return densities, replace(experiment, sample=replace(experiment.sample, copies=copies))


def _make(
    out: Path,
    name: str,
    number: int,
    experiment: Experiment,
    molecules: Molecules,
    fingerprint: str,
    device: str,
) -> dict[str, Any]:
    """Simulate one tomogram and write its files, the truth last; returns what its truth says of it."""
    wanted = experiment.dataset
    rng = np.random.default_rng((wanted.seed, number - 1))
    settings = experiment.sample
    if wanted.draw:
        settings, acquisition, delivery = random_experiment(rng, settings)
    else:
        acquisition = replace(experiment.acquisition, defocus_um=float(rng.uniform(*experiment.defocus_um)))
        delivery = experiment.delivery

    def tell(stage: str) -> None:
        if np.prod(settings.shape) >= _LARGE_VOXELS:
            note(f"{name}: {stage}")

    extras = Extras(wanted.tilt_series, wanted.labels, wanted.noise_free)
    made = simulate_tomogram(molecules, settings, acquisition, rng, name, device, extras, tell)
    voxel_A = settings.voxel_size_A
    volume, size_A = deliver(made.volume, voxel_A, delivery, acquisition)
    write_mrc(out / f"{name}.mrc", volume, size_A)
    if made.images is not None:
        write_tilt_series(out, name, made.images, voxel_A, acquisition)
    if made.labels is not None:
        write_mrc(out / f"{name}_labels.mrc", _nearest(made.labels, voxel_A, size_A), size_A)
    if made.noise_free is not None:
        # What was done to see more in the noise is not done without noise.
        plain = Delivery(delivery.binned_to_A, delivery.delivered_at_A, contrast=delivery.contrast)
        write_mrc(out / f"{name}_noisefree.mrc", deliver(made.noise_free, voxel_A, plain, acquisition)[0], size_A)
    record: dict[str, Any] = {
        "simulation": fingerprint,
        "crowding": _crowding(made),
        "sample": asdict(settings),
        "acquisition": asdict(acquisition),
        "delivery": asdict(delivery),
    }
    z, y, x = volume.shape
    write_coordinates(out / f"{name}_truth.star", made.truth.to_voxel_size(size_A, (z, y, x)), **record)
    return record


def _crowding(made: SimulatedTomogram) -> dict[str, Any]:
    """How crowded the sample became, in plain numbers."""
    nearest = made.crowding.nearest_A
    known = len(nearest) > 1
    return {
        "occupied": round(made.crowding.occupied, 4),
        "concentration_g_per_L": round(made.crowding.concentration_g_per_L, 1),
        "nearest_A": {f"{100 * q:g}%": round(float(np.quantile(nearest, q)), 1) for q in (0, 0.1, 0.5, 0.9)}
        if known
        else {},
        "copies_in_tomogram": dict(sorted(Counter(map(str, made.truth.label)).items())),
    }


def _files(out: Path, name: str, experiment: Experiment) -> dict[str, Path]:
    """What is wanted of one tomogram."""
    wanted = experiment.dataset
    files = {"tomogram": out / f"{name}.mrc", "truth": out / f"{name}_truth.star"}
    if wanted.tilt_series:
        files |= dict(zip(("images", "tilts", "mdoc"), series_paths(out, name), strict=True))
    if wanted.labels:
        files["labels"] = out / f"{name}_labels.mrc"
    if wanted.noise_free:
        files["noise-free"] = out / f"{name}_noisefree.mrc"
    return files


def _all_files(out: Path, name: str) -> list[Path]:
    """All that may have been written of one tomogram, the truth first: without it nothing counts as complete."""
    endings = ("_truth.star", ".mrc", "_labels.mrc", "_noisefree.mrc")
    return [*(out / f"{name}{ending}" for ending in endings), *series_paths(out, name)]


def _earlier(out: Path) -> dict[str, Any]:
    """Records of tomograms in the folder."""
    try:
        known = json.loads((out / "simulation.json").read_text(encoding="utf-8"))["tomograms"]
        return {name: record for name, record in known.items() if (out / f"{name}_truth.star").is_file()}
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return {}


def _record(truth: Path) -> dict[str, Any]:
    """What a truth file says made it; nothing where it does not say so."""
    try:
        made = read_pairs(str(truth), "tomotwin")["tomotwinProvenance"]
        return dict(json.loads(made)["settings"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return {}


def _nearest(labels: NDArray[np.int16], size_in_A: float, size_out_A: float) -> NDArray[np.int16]:
    """Labels [z, y, x] at another voxel size, each of the nearest voxel there was."""
    z, y, x = labels.shape
    at = [
        np.round(np.arange(n) * size_out_A / size_in_A).astype(int)
        for n in resampled_shape((z, y, x), size_in_A, size_out_A)
    ]
    return labels[np.ix_(*at)]


def _write_references(out: Path, densities: Mapping[str, Density], voxel_size_A: float) -> None:
    for species, density in densities.items():
        coarse = at_voxel_size(density, voxel_size_A)
        write_mrc(out / "references" / f"{species}.mrc", coarse.values, voxel_size_A)


def _write_legend(path: Path, densities: Mapping[str, Density]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("label", "name", "mass_kDa"))
        for name, number in legend(list(densities)).items():
            rows.writerow((number, name, f"{densities[name].mass_kDa:.1f}" if name in densities else ""))


def _made_by(experiment: Experiment, densities: Mapping[str, Density]) -> dict[str, Any]:
    return {
        "seed": experiment.dataset.seed,
        "draw": experiment.dataset.draw,
        "sample": asdict(experiment.sample),
        "acquisition": asdict(experiment.acquisition),
        "defocus_um": experiment.defocus_um,
        "delivery": asdict(experiment.delivery),
        "species_kDa": {n: round(d.mass_kDa, 1) for n, d in densities.items()},
    }


def _fingerprint(made_by: Mapping[str, Any], densities: Mapping[str, Density]) -> str:
    digest = hashlib.sha256(json.dumps({**made_by, "version": __version__}, sort_keys=True).encode())
    for name in sorted(densities):
        digest.update(densities[name].values.tobytes())
    return digest.hexdigest()[:16]
