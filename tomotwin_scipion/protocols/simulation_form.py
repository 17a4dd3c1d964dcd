"""The experiment of *simulate tomograms*: its part of the form, and the checks of what is filled in."""

import os
from typing import Any, List

from pyworkflow.protocol import LEVEL_ADVANCED, params

from ..constants import LARGEST_VOXEL_SIZE_A, SMALLEST_VOXEL_SIZE_A
from ..convert import target_name
from ..targets import is_cut_out, iter_references
from .simulation_settings import DETECTORS, FILTERS, MEMBRANE_PROTEINS, SCHEMES, parse_molecules, parse_tilts

FROM_FORM, FROM_FILE = range(2)
# Held-out and trained molecules of all sizes, told apart at 10 Å.
DEFAULT_MOLECULES = "4v6x, 1dzl, 1eab, 1qvr, 5t4o, 1g3i, 3uwx, 2iy5, 1a9x, 1n2c"

BY_FORM = f"settingsFrom == {FROM_FORM}"
NOT_DRAWN = f"{BY_FORM} and not drawEverything"
SMALLEST_SIDE, LARGEST_SIDE = 16, 4096


# ------------------------------ form ------------------------------
def define_sample_params(form: Any) -> None:
    """Add the section *Sample* to a form."""
    form.addSection(label="Sample")
    form.addParam(
        "settingsFrom",
        params.EnumParam,
        choices=["this form", "a settings file"],
        default=FROM_FORM,
        display=params.EnumParam.DISPLAY_HLIST,
        label="Experiment from",
        help="*this form* offers what is changed most. *a settings file* (TOML) holds every quantity of sample, "
        "microscope, reconstruction and what is done to the tomogram afterwards; the command `tomotwin simulate "
        "--write-settings FILE.toml` writes one with all defaults, explained. A run of this protocol leaves its own as "
        "_experiment.toml_ in the extra folder: change that, and give it here.",
    )
    form.addParam(
        "settingsFile",
        params.FileParam,
        allowsNull=True,
        condition=f"settingsFrom == {FROM_FILE}",
        label="Settings file (TOML)",
        help="What it says counts in place of the pages Sample and Microscope. How many tomograms, the seed and "
        "the outputs are still chosen here.",
    )
    form.addParam("numberOfTomograms", params.IntParam, default=2, label="Tomograms", help="How many are made.")
    form.addParam(
        "molecules",
        params.TextParam,
        default=DEFAULT_MOLECULES,
        height=3,
        width=60,
        condition=BY_FORM,
        important=True,
        label="Molecules",
        help="What is in the ice, separated by commas or one on a line, each of them\n"
        "- the identifier of a molecule of the library, such as _4v6x_ (`tomotwin library list` shows all),\n"
        "- _pdb:1abc_, fetched from the Protein Data Bank (needs the internet),\n"
        "- the path of an atomic model (.cif, .pdb) or of a density map (.mrc, .map),\n"
        "- _all-heldout_: every molecule of the library that the released model never saw in training.\n"
        "A number after = is the copies of that one: _4v6x = 10_.\n"
        "5 to 20 species give a realistic crowd.",
    )
    form.addParam(
        "inputMolecules",
        params.MultiPointerParam,
        pointerClass="Volume, SetOfVolumes, AtomStruct, SetOfAtomStructs",
        allowsNull=True,
        condition=BY_FORM,
        label="More molecules",
        help="Atomic models and density maps (protein bright, as in the EMDB) of this project, beside those named above. "
        "The text above may be empty then.",
    )
    form.addParam(
        "copies",
        params.IntParam,
        default=30,
        condition=BY_FORM,
        label="Copies of each",
        help="Copies of each molecule that are tried in each tomogram. Fewer are placed where there is no room: nothing "
        "overlaps.",
    )
    form.addParam(
        "voxelSize",
        params.FloatParam,
        default=8.0,
        condition=BY_FORM,
        label="Voxel size (Å)",
        help=f"Of the tomograms, {SMALLEST_VOXEL_SIZE_A:g} to {LARGEST_VOXEL_SIZE_A:g}. 8 to 14 Å is what is usually picked "
        "in; half the voxel size costs eight times the time.",
    )
    size = form.addLine(
        "Size (voxels)",
        condition=BY_FORM,
        help=f"Of the tomograms, each side {SMALLEST_SIDE} to {LARGEST_SIDE}. 220 × 220 × 110 is quick to try; "
        "512 × 512 × 200 at 10 Å is a whole tomogram, minutes of computing.",
    )
    for axis, value in (("X", 220), ("Y", 220), ("Z", 110)):
        size.addParam("size" + axis, params.IntParam, default=value, label=axis.lower())
    form.addParam(
        "drawEverything",
        params.BooleanParam,
        default=False,
        condition=BY_FORM,
        label="Draw everything at random?",
        help="Every tomogram gets an acquisition, ice, membranes, fiducials, reconstruction and later treatment of its "
        "own, drawn as for the training of the network from what is found in practice. Of this form only the molecules, "
        "size and voxel size count then, and the ice's thickness and fullest share as what is drawn about. For "
        "training data, and for seeing how robust a method is.",
    )
    form.addParam(
        "thickness",
        params.FloatParam,
        allowsNull=True,
        default=None,
        condition=BY_FORM,
        label="Thickness of the ice (Å)",
        help="500 to 2500 Å is usual. Empty: 0.8 of the tomogram's height.",
    )
    furniture = (
        ("vesicles", 0, "Lipid vesicles", "Closed membranes of 400 to 1400 Å diameter, number in each tomogram."),
        ("membranes", 0, "Membrane sheets", "Membranes that cross the tomogram, flat or curved; number in each."),
        ("actin", 0, "Actin filaments", "F-actin, number of filaments in each tomogram."),
        ("microtubules", 0, "Microtubules", "Number in each tomogram."),
        ("gold", 0, "Gold beads", "Fiducials of 5 to 10 nm diameter, number in each tomogram: 10 to 20 are usual."),
    )
    for name, default, label, text in furniture:
        form.addParam(name, params.IntParam, default=default, condition=NOT_DRAWN, label=label, help=text)
    form.addParam(
        "membraneProteins",
        params.EnumParam,
        choices=MEMBRANE_PROTEINS,
        default=0,
        condition=NOT_DRAWN,
        expertLevel=LEVEL_ADVANCED,
        label="Membrane proteins",
        help="Where molecules go whose place in a bilayer is known: *auto*, into the membranes where the sample has any and "
        "else free in the ice, as if in detergent; *seated*, only into membranes; *free*, only into the ice.",
    )
    form.addParam(
        "carbon",
        params.FloatParam,
        default=0.0,
        condition=NOT_DRAWN,
        expertLevel=LEVEL_ADVANCED,
        label="Carbon film (Å)",
        help="Thickness of a carbon film whose edge reaches into the field, 120 to 200 usually; 0 for none.",
    )
    form.addParam(
        "occupied",
        params.FloatParam,
        default=0.35,
        condition=BY_FORM,
        expertLevel=LEVEL_ADVANCED,
        label="Fullest share of the ice",
        help="No more is placed once this share of the ice's volume is taken: 0.35 is as crowded as cytoplasm.",
    )
    form.addParam(
        "iceUnevenness",
        params.FloatParam,
        default=0.0,
        condition=NOT_DRAWN,
        expertLevel=LEVEL_ADVANCED,
        label="Unevenness of the ice (Å)",
        help="How much the height of the ice's surfaces varies over the field (standard deviation); 50 to 200 Å is usual.",
    )
    slab = form.addLine(
        "Tilt of the ice (deg)",
        condition=NOT_DRAWN,
        expertLevel=LEVEL_ADVANCED,
        help="How far the slab of ice is turned against the tomogram's plane, about its x and its y axis; up to 10 is usual.",
    )
    for axis in ("X", "Y"):
        slab.addParam("iceTilt" + axis, params.FloatParam, default=0.0, label="about " + axis.lower())
    form.addParam(
        "seed",
        params.IntParam,
        default=1,
        label="Seed",
        help="Of all random numbers: the same seed gives the same tomograms.",
    )


def define_microscope_params(form: Any) -> None:
    """Add the section *Microscope* to a form."""
    form.addSection(label="Microscope")
    form.addParam(
        "microscopeElsewhere",
        params.LabelParam,
        condition=f"not ({NOT_DRAWN})",
        label="All of this comes from the settings file, or is drawn at random: see the page Sample.",
    )
    tilts = form.addLine("Tilt angles (deg)", condition=NOT_DRAWN, help="-60 to 60 by 2 or 3 is usual.")
    for name, value, label in (("tiltMin", -60.0, "first"), ("tiltMax", 60.0, "last"), ("tiltStep", 2.0, "step")):
        tilts.addParam(name, params.FloatParam, default=value, label=label)
    form.addParam(
        "scheme",
        params.EnumParam,
        choices=SCHEMES,
        default=0,
        condition=NOT_DRAWN,
        label="Tilt scheme",
        help="Order in which the tilts are exposed, and so which of them suffer most from radiation: *dose-symmetric* (0, 2, "
        "-2, 4 ...), *bidirectional* (from 0 to one end, then to the other) or *continuous* (from end to end).",
    )
    form.addParam(
        "dose",
        params.FloatParam,
        default=120.0,
        condition=NOT_DRAWN,
        label="Total dose (e/Å^2)",
        help="Of the whole tilt series; 60 to 180 is usual.",
    )
    defocus = form.addLine(
        "Defocus (µm)",
        condition=NOT_DRAWN,
        help="Underfocus; that of each tomogram is drawn between the two. 1.5 to 8 µm: more contrast of large features "
        "against less detail.",
    )
    defocus.addParam("defocusMin", params.FloatParam, default=2.5, label="from")
    defocus.addParam("defocusMax", params.FloatParam, default=5.0, label="to")
    form.addParam(
        "voltage",
        params.FloatParam,
        default=300.0,
        condition=NOT_DRAWN,
        label="Voltage (kV)",
        help="200 or 300 is usual; at 200 kV radiation does more damage.",
    )
    form.addParam(
        "ctfCorrected",
        params.BooleanParam,
        default=False,
        condition=NOT_DRAWN,
        label="Flip phases?",
        help="Correct the sign of the CTF in every image before the reconstruction.",
    )
    form.addParam(
        "doseWeighted",
        params.BooleanParam,
        default=False,
        condition=NOT_DRAWN,
        label="Weight by dose?",
        help="Damp what radiation has destroyed, image by image, before the reconstruction.",
    )
    experts = (
        ("sphericalAberration", 2.7, "Spherical aberration (mm)", "Cs of the objective lens."),
        ("amplitudeContrast", 0.08, "Amplitude contrast", "Share of it; 0.07 to 0.1 is usual."),
        ("phaseShift", 0.0, "Phase plate (deg)", "Phase shift; 90 for a Volta plate, 0 for none."),
        ("startTilt", 0.0, "First exposed tilt (deg)", "Where the tilt scheme starts: the pre-tilt of a lamella."),
        ("shiftError", 3.0, "Alignment error (Å)", "What the alignment of the images leaves as shifts; 2 to 10."),
        ("rotationError", 0.1, "Rotation error (deg)", "What the alignment leaves as rotations in the plane."),
    )
    for name, default, label, text in experts:
        form.addParam(
            name,
            params.FloatParam,
            default=default,
            condition=NOT_DRAWN,
            expertLevel=LEVEL_ADVANCED,
            label=label,
            help=text,
        )
    form.addParam(
        "sirtIterations",
        params.IntParam,
        default=0,
        condition=NOT_DRAWN,
        expertLevel=LEVEL_ADVANCED,
        label="SIRT-like iterations",
        help="0: plain weighted back-projection. 5 to 20: as smooth as after so many iterations of SIRT.",
    )
    form.addParam(
        "detector",
        params.EnumParam,
        choices=DETECTORS,
        default=0,
        condition=NOT_DRAWN,
        expertLevel=LEVEL_ADVANCED,
        label="Detector",
        help="Whose blur and noise the images have.",
    )
    form.addParam(
        "filter",
        params.EnumParam,
        choices=FILTERS,
        default=0,
        condition=NOT_DRAWN,
        expertLevel=LEVEL_ADVANCED,
        label="Filter of the reconstruction",
        help="*ramp* keeps all detail and all noise; the others fall off towards it. *gaussian* is IMOD's default.",
    )
    form.addParam(
        "missingTilts",
        params.StringParam,
        default="",
        condition=NOT_DRAWN,
        expertLevel=LEVEL_ADVANCED,
        label="Missing tilts (deg)",
        help="Angles that were lost, separated by spaces or commas.",
    )


# ------------------------------ checks ------------------------------
def validate_experiment(protocol: Any) -> List[str]:
    """Sentences about what cannot be; an empty list when all is well."""
    errors = []
    if protocol.numberOfTomograms.get() < 1:
        errors.append("Tomograms: make at least one.")
    if protocol.seed.get() < 0:
        errors.append("Seed: it cannot be negative.")
    if protocol.settingsFrom == FROM_FILE:
        path = protocol.settingsFile.get() or ""
        if not os.path.isfile(path):
            errors.append(f"Settings file: there is no file {path or 'given'}.")
        return errors
    errors += _validate_molecules(protocol) + _validate_sample(protocol)
    return errors if protocol.drawEverything else errors + _validate_microscope(protocol)


def _validate_molecules(protocol: Any) -> List[str]:
    errors = []
    try:
        molecules = parse_molecules(protocol.molecules.get())
    except ValueError as error:
        return [str(error)]
    references = list(iter_references(protocol.inputMolecules))
    if any(is_cut_out(reference) for reference in references):
        return ["More molecules: subtomograms cannot be simulated; give maps or atomic models."]
    if not molecules and not references:
        errors.append("Molecules: name at least one, or choose some of the project.")
    for molecule in molecules:
        isPath = "/" in molecule.source or molecule.source.lower().endswith((".cif", ".pdb", ".mrc", ".map", ".gz"))
        if isPath and not os.path.isfile(molecule.source):
            errors.append(f"Molecules: there is no file {molecule.source}.")
    names = [molecule.name for molecule in molecules]
    for reference in references:
        names.append(target_name(reference.getFileName(), []))
    for name in sorted({name for name in names if names.count(name) > 1}):
        errors.append(f"Molecules: two are called {name}; name each once, and give files different names.")
    if protocol.copies.get() < 1:
        errors.append("Copies of each: give at least 1.")
    return errors


def _validate_sample(protocol: Any) -> List[str]:
    errors = []
    if not SMALLEST_VOXEL_SIZE_A <= protocol.voxelSize.get() <= LARGEST_VOXEL_SIZE_A:
        errors.append(f"Voxel size: it must lie within {SMALLEST_VOXEL_SIZE_A:g} and {LARGEST_VOXEL_SIZE_A:g} Å.")
    sides = [protocol.sizeX.get(), protocol.sizeY.get(), protocol.sizeZ.get()]
    if min(sides) < SMALLEST_SIDE or max(sides) > LARGEST_SIDE:
        errors.append(f"Size: each side must have {SMALLEST_SIDE} to {LARGEST_SIDE} voxels.")
    if protocol.drawEverything:
        return errors
    thickness = protocol.thickness.get()
    if thickness is not None and not 0 < thickness <= protocol.sizeZ.get() * protocol.voxelSize.get():
        errors.append("Thickness of the ice: it must be larger than 0 and fit into the tomogram's height.")
    if not 0 < protocol.occupied.get() <= 1:
        errors.append("Fullest share of the ice: it is larger than 0, and 1 at most.")
    for name in ("vesicles", "membranes", "actin", "microtubules", "gold", "carbon", "iceUnevenness"):
        if getattr(protocol, name).get() < 0:
            errors.append(f"{protocol.getParam(name).label.get()}: it cannot be negative.")
    return errors


def _validate_microscope(protocol: Any) -> List[str]:
    errors = []
    if not -85 <= protocol.tiltMin.get() < protocol.tiltMax.get() <= 85:
        errors.append("Tilt angles: the first must be smaller than the last, both within -85 and 85 degrees.")
    if not 0.1 <= protocol.tiltStep.get() <= 20:
        errors.append("Tilt angles: the step must lie within 0.1 and 20 degrees.")
    if not 1 <= protocol.dose.get() <= 2000:
        errors.append("Total dose: it must lie within 1 and 2000 e/Å^2.")
    if not 0.1 <= protocol.defocusMin.get() <= protocol.defocusMax.get() <= 20:
        errors.append("Defocus: it is an underfocus within 0.1 and 20 µm, with the smaller number first.")
    if not 60 <= protocol.voltage.get() <= 1000:
        errors.append("Voltage: it must lie within 60 and 1000 kV.")
    try:
        missing = parse_tilts(protocol.missingTilts.get())
    except ValueError:
        return errors + ["Missing tilts: give angles in degrees, separated by spaces or commas."]
    if not errors:
        first, last, step = protocol.tiltMin.get(), protocol.tiltMax.get(), protocol.tiltStep.get()
        planned = [first + step * number for number in range(int((last - first) / step + 1e-6) + 1)]
        strange = [tilt for tilt in missing if min(abs(tilt - angle) for angle in planned) > 0.05 * step]
        if strange:
            errors.append(
                f"Missing tilts: {strange[0]:g} is none of the tilts {first:g} to {last:g} by {step:g} degrees."
            )
        elif len(set(missing)) >= len(planned):
            errors.append("Missing tilts: these are all; one at least must be left.")
    return errors
