"""The settings file of a simulated experiment, made out of the form of *simulate tomograms*.

The engine takes its settings as a TOML file (``tomotwin simulate --write-settings FILE.toml`` explains every entry).
The form's numbers are written as one, which stays beside the output: it is the record of the run, and can be changed
and given back to the protocol or to the command.
"""

import json
import os
import re
from typing import Any, Dict, Iterable, List, NamedTuple

from ..targets import Target

SCHEMES = ["dose-symmetric", "bidirectional", "continuous"]
MEMBRANE_PROTEINS = ["auto", "seated", "free"]
DETECTORS = ["K3", "K2", "Falcon4i", "Falcon2", "ideal"]
FILTERS = ["ramp", "gaussian", "shepp-logan", "cosine", "hamming", "hann"]

# What stands in the settings file under the same meaning: form parameter by entry, by table.
ENTRIES: Dict[str, Dict[str, str]] = {
    "sample": {
        "voxel_size_A": "voxelSize",
        "thickness_A": "thickness",
        "occupied": "occupied",
        "vesicles": "vesicles",
        "membranes": "membranes",
        "actin": "actin",
        "microtubules": "microtubules",
        "gold": "gold",
        "carbon_A": "carbon",
        "ice_unevenness_A": "iceUnevenness",
    },
    "microscope": {
        "dose_e_per_A2": "dose",
        "voltage_kV": "voltage",
        "cs_mm": "sphericalAberration",
        "amplitude_contrast": "amplitudeContrast",
        "phase_shift_deg": "phaseShift",
    },
    "tilts": {
        "tilt_min_deg": "tiltMin",
        "tilt_max_deg": "tiltMax",
        "tilt_step_deg": "tiltStep",
        "start_tilt_deg": "startTilt",
        "shift_error_A": "shiftError",
        "rotation_error_deg": "rotationError",
    },
    "reconstruction": {
        "ctf_corrected": "ctfCorrected",
        "dose_weighted": "doseWeighted",
        "sirt_iterations": "sirtIterations",
    },
}
# The only ones of these that count when everything is drawn; about the last two the draw is made.
FIXED_WHEN_DRAWN = ("voxel_size_A", "thickness_A", "occupied")


class Molecule(NamedTuple):
    """One species as the text of the form names it; `copies` 0 stands for the form's number."""

    source: str
    copies: int

    @property
    def name(self) -> str:
        """What the engine calls it: the identifier, or the file's name up to its first dot."""
        return os.path.basename(self.source.split(":", 1)[-1]).split(".")[0]


def settings_text(protocol: Any, targets: Iterable[Target]) -> str:
    """What the form says as a settings file; `targets` are the molecules that came as objects of the project."""
    copies = protocol.copies.get()
    molecules = parse_molecules(protocol.molecules.get())
    species = {molecule.source: molecule.copies or copies for molecule in molecules}
    species.update({target.source: copies for target in targets})
    tables: Dict[str, Dict[str, Any]] = {"species": species}
    for table, entries in ENTRIES.items():
        counts = [entry for entry in entries if entry in FIXED_WHEN_DRAWN or not protocol.drawEverything]
        tables[table] = {entry: getattr(protocol, entries[entry]).get() for entry in counts}
    tables["sample"]["shape"] = [protocol.sizeZ.get(), protocol.sizeY.get(), protocol.sizeX.get()]
    if protocol.drawEverything:
        tables["random"] = {"draw": True}
    else:
        tables["sample"]["slab_tilt_deg"] = [protocol.iceTiltX.get(), protocol.iceTiltY.get()]
        tables["sample"]["membrane_proteins"] = MEMBRANE_PROTEINS[protocol.membraneProteins.get()]
        tables["microscope"]["defocus_um"] = [protocol.defocusMin.get(), protocol.defocusMax.get()]
        tables["microscope"]["detector"] = DETECTORS[protocol.detector.get()]
        tables["reconstruction"]["filter"] = FILTERS[protocol.filter.get()]
        tables["tilts"]["scheme"] = SCHEMES[protocol.scheme.get()]
        tables["tilts"]["missing_tilts_deg"] = parse_tilts(protocol.missingTilts.get())
    lines = ["# Settings of tomotwin simulate, as the form of the protocol had them."]
    for table, values in tables.items():
        # Texts, numbers, truth values and lists are written in TOML as JSON writes them.
        rows = [f"{_key(entry)} = {json.dumps(value)}" for entry, value in values.items() if value is not None]
        lines += ["", f"[{table}]"] + rows if rows else []
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, flags=re.ASCII) else json.dumps(name)


def parse_molecules(text: str) -> List[Molecule]:
    """The molecules of the form's text; ValueError with a sentence where a number of copies is none."""
    found = []
    for word in re.split(r"[,\n]", text or ""):
        source, equals, copies = (part.strip() for part in word.partition("="))
        if not source:
            continue
        if equals and (not copies.isdigit() or int(copies) < 1):
            raise ValueError(f"Molecules: '{copies}' is not a number of copies; write for example {source} = 10.")
        found.append(Molecule(source, int(copies) if equals else 0))
    return found


def parse_tilts(text: str) -> List[float]:
    """Tilt angles out of a text; ValueError where one is no number."""
    return [float(word) for word in re.split(r"[,\s]+", text or "") if word]
