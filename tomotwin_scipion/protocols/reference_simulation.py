"""How references are imaged: the expert part of the form, its checks, and the engine's options out of it.

A reference is embedded as it would look in the tomograms, so the acquisition of those is taken where it is
known: tilt range and step shape the missing wedge, the dose the noise, the defocus the contrast.
"""

from typing import Any, Dict, List, Optional

from pyworkflow.protocol import LEVEL_ADVANCED, params
from tomo.objects import Tomogram

from ..constants import BRIGHT, CONTRASTS, DARK

# What the engine takes, and what it takes where nothing is said.
DEFAULT_TILTS = {"--tilt-min": -60.0, "--tilt-max": 60.0}
LARGEST_TILT = 85  # deg
DEFOCUS_UM = (0.1, 20)
LIMITS = {
    "--tilt-step": ("Tilt angles, step", 0.1, 20, "°"),
    "--dose": ("Total dose", 1, 2000, " e/Å^2"),
    "--voltage": ("Voltage", 60, 1000, " kV"),
}


def define_simulation_params(form: Any) -> None:
    """Add the section to a form."""
    form.addSection(label="Reference simulation")
    form.addParam(
        "referenceContrast",
        params.EnumParam,
        choices=["dark", "bright"],
        default=BRIGHT,
        display=params.EnumParam.DISPLAY_HLIST,
        label="Reference maps are",
        help="Contrast of the reference volumes: macromolecules *bright*, as in the EMDB and out of refinements, or "
        "*dark*, as in an average of subtomograms whose contrast was not inverted. Not used for atomic models.",
    )
    form.addParam(
        "subtomogramContrast",
        params.EnumParam,
        choices=["dark", "bright"],
        default=DARK,
        display=params.EnumParam.DISPLAY_HLIST,
        label="Subtomograms are",
        help="Contrast of macromolecules in the sets of subtomograms among the references: *dark*, as they are cut out of "
        "tomograms, or *bright* where the extraction inverted them, as for RELION.",
    )
    define_acquisition_params(form)
    form.addParam(
        "seed",
        params.IntParam,
        default=1,
        expertLevel=LEVEL_ADVANCED,
        label="Seed",
        help="Seed of the noise and orientations with which the references are imaged: the same seed gives the same "
        "picks.",
    )


def define_acquisition_params(form: Any) -> None:
    """Add how the tomograms were taken, where they do not say it themselves."""
    tilts = form.addLine(
        "Tilt angles (deg)",
        expertLevel=LEVEL_ADVANCED,
        help="Tilt series with which the references are imaged: it shapes their missing wedge. Leave empty to take "
        "what the tomograms' acquisition says, or where that says nothing the program's default, -60 to 60 by 2.",
    )
    for name, label in (("tiltMin", "first"), ("tiltMax", "last"), ("tiltStep", "step")):
        tilts.addParam(name, params.FloatParam, allowsNull=True, default=None, label=label)
    form.addParam(
        "dose",
        params.FloatParam,
        allowsNull=True,
        default=None,
        expertLevel=LEVEL_ADVANCED,
        label="Total dose (e/Å^2)",
        help="Dose of the whole tilt series. Leave empty to take what the tomograms' acquisition says, "
        "or where that says nothing the program's default, 120.",
    )
    defocus = form.addLine(
        "Defocus (µm)",
        expertLevel=LEVEL_ADVANCED,
        help="Range of the underfocus of the tilt series. Leave empty for the program's default, 2.5 to 5 µm.",
    )
    defocus.addParam("defocusMin", params.FloatParam, allowsNull=True, default=None, label="from")
    defocus.addParam("defocusMax", params.FloatParam, allowsNull=True, default=None, label="to")


def validate_simulation_params(protocol: Any, tomogram: Optional[Tomogram] = None) -> List[str]:
    """Sentences about what cannot be, in the form or together with a tomogram's acquisition; an empty list when all is
    well."""
    errors = []
    tiltMin, tiltMax, tiltStep = protocol.tiltMin.get(), protocol.tiltMax.get(), protocol.tiltStep.get()
    if tiltMin is not None and tiltMax is not None and tiltMin >= tiltMax:
        errors.append("Tilt angles: the first must be smaller than the last.")
    if tiltStep is not None and tiltStep <= 0:
        errors.append("Tilt angles: the step must be larger than 0.")
    if protocol.dose.get() is not None and protocol.dose.get() <= 0:
        errors.append("Total dose: it must be larger than 0.")
    first, last = protocol.defocusMin.get(), protocol.defocusMax.get()
    if (first is None) != (last is None):
        errors.append("Defocus: give both ends of the range, or none.")
    elif first is not None and not 0 < first <= last:
        errors.append("Defocus: it is an underfocus in µm, larger than 0, with the smaller number first.")
    elif first is not None and not (DEFOCUS_UM[0] <= first and last <= DEFOCUS_UM[1]):
        errors.append("Defocus: both ends must lie within {:g} and {:g} µm.".format(*DEFOCUS_UM))
    if getattr(protocol, "seed", None) is not None and protocol.seed.get() < 0:
        errors.append("Seed: it cannot be negative.")
    return errors if errors or tomogram is None else _validate_together(protocol, tomogram)


def _validate_together(protocol: Any, tomogram: Tomogram) -> List[str]:
    """What the form says, where it says nothing the tomogram's acquisition, and where that says nothing the program's
    default must make one tilt series."""
    taken = {**DEFAULT_TILTS, **_taken(protocol, tomogram)}
    errors = []
    if not -LARGEST_TILT <= taken["--tilt-min"] < taken["--tilt-max"] <= LARGEST_TILT:
        errors.append(
            f"Tilt angles: with what the tomograms' acquisition says they go from {taken['--tilt-min']:g} to "
            f"{taken['--tilt-max']:g} degrees; they must rise within -{LARGEST_TILT} and {LARGEST_TILT}: give both ends here."
        )
    for option, (name, low, high, unit) in LIMITS.items():
        value = taken.get(option)
        if value is not None and not low <= value <= high:
            errors.append(
                f"{name}: {value:g}{unit}, of the form or the tomograms' acquisition, is not within {low:g} and {high:g}."
            )
    return errors


def simulation_args(protocol: Any, tomogram: Tomogram) -> List[str]:
    """Options of ``tomotwin reference``: the form's numbers, else the tomogram's acquisition, else none."""
    args = ["--contrast", CONTRASTS[protocol.referenceContrast.get()], "--seed", str(protocol.seed.get())]
    args += ["--subtomogram-contrast", CONTRASTS[protocol.subtomogramContrast.get()]]
    args += ["--tomogram-voxel-size", f"{tomogram.getSamplingRate():g}"]
    return args + acquisition_args(protocol, tomogram)


def acquisition_args(protocol: Any, tomogram: Tomogram) -> List[str]:
    """How the tomogram was taken, as options of the engine: the form's numbers, else its acquisition, else none."""
    args = ["--ctf-corrected"] if tomogram.ctfCorrected() else []
    for option, value in _taken(protocol, tomogram).items():
        args += [option, f"{value:g}"]
    if protocol.defocusMin.get() is not None:
        args += ["--defocus", f"{protocol.defocusMin.get():g}", f"{protocol.defocusMax.get():g}"]
    return args


def _taken(protocol: Any, tomogram: Tomogram) -> Dict[str, float]:
    """Numbers of the acquisition by the engine's option, as far as form or tomogram know them."""
    known: Dict[str, Any] = {}
    if tomogram.hasAcquisition():
        acquisition = tomogram.getAcquisition()
        # A range of nothing, a step or a dose of 0 mean that nobody filled them in.
        if acquisition.getAngleMin() != acquisition.getAngleMax():
            known["--tilt-min"] = acquisition.getAngleMin()
            known["--tilt-max"] = acquisition.getAngleMax()
        known["--tilt-step"] = acquisition.getStep() or None
        known["--dose"] = acquisition.getAccumDose() or None
        known["--voltage"] = acquisition.getVoltage() or None
    asked = {
        "--tilt-min": protocol.tiltMin.get(),
        "--tilt-max": protocol.tiltMax.get(),
        "--tilt-step": protocol.tiltStep.get(),
        "--dose": protocol.dose.get(),
    }
    known.update({option: value for option, value in asked.items() if value is not None})
    return {option: value for option, value in known.items() if value is not None}
