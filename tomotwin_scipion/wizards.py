"""Wizards: values of the forms that can be measured, or chosen on a picture.

Particle diameter and box size are measured by the engine in the references, the range of planes is chosen on side views of
the tomograms, and a threshold in the picking window on what the run before has found.
"""

import os
import re
import shlex
import subprocess
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from pyworkflow.gui.dialog import showInfo, showWarning
from pyworkflow.utils import cleanPath, makePath
from pyworkflow.wizard import Wizard
from tomo.objects import Tomogram

from . import Plugin
from .constants import BRIGHT, OUTPUT_COORDINATES
from .convert import box_of
from .enabled import enabled_items
from .protocols import ProtTwinClusterPicking, ProtTwinCreateMask, ProtTwinEvaluatePicks, ProtTwinReferencePicking
from .protocols.evaluation_form import chosen_diameters, chosen_kinds
from .protocols.picking_form import THRESHOLD_NUMBER
from .targets import (
    diameters_by_group,
    groups_file,
    is_cut_out,
    iter_references,
    parse_identifiers,
    prepare_targets,
    read_groups,
)
from .viewers.viewed_picks import ViewedPicks
from .viewers.z_range_plotter import ZRangePlotter

TITLE = "TomoTwin"
ROUNDED_TO_A = 5.0
ACROSS = re.compile(r"^(.*): molecule of .* kDa, (\d+) A across$", re.MULTILINE)


class CannotMeasure(Exception):
    """A sentence about why a value cannot be measured."""


# ------------------------------ diameter and box size ------------------------------
def measured_diameters(protocol: Any) -> Dict[str, float]:
    """Diameter in A by name of everything that a form of *reference picking* looks for and whose size can be told: maps,
    models and identifiers, measured by the engine, and example positions, whose box says it.

    Raises
    ------
    CannotMeasure
        When there is nothing, or the engine cannot read it.
    """
    references = [item for item in iter_references(protocol.inputReferences) if not is_cut_out(item)]
    references = [item for item in references if not isinstance(item, Tomogram)]  # refused when the run starts
    found: Dict[str, float] = {}
    for pointer in protocol.inputExamples:
        examples = pointer.get()
        names, diameters = read_groups(groups_file(examples))[0], diameters_by_group(examples)
        found.update({names.get(group, f"group_{group}"): diameters[group] for group in diameters})
        if not diameters and examples.getBoxSize():
            found["example positions"] = float(examples.getBoxSize() * examples.getSamplingRate())
    try:
        identifiers = parse_identifiers(protocol.identifiers.get())
    except ValueError as error:
        raise CannotMeasure(f"Identifiers: {error}") from error
    if not (references or identifiers or found):
        raise CannotMeasure(
            "There is nothing to measure: choose references, identifiers or example positions first. Subtomograms do not say "
            "how large the particle in them is."
        )
    folder = protocol.getProject().getTmpPath("tomotwin_wizard")
    cleanPath(folder)
    makePath(folder)
    targets = prepare_targets(references, folder)
    sources = {target.source: target.name for target in targets}
    sources.update({identifier: identifier for identifier in identifiers})
    if sources:
        dark = [] if protocol.referenceContrast == BRIGHT else ["--dark"]
        measured = _across(_told(["info", "--molecule", *dark, *sources]))
        found.update({name: measured[source] for source, name in sources.items()})
    cleanPath(folder)
    return found


def _told(words: List[str]) -> str:
    """What a command of the engine prints."""
    call = Plugin.getProgram() + " " + " ".join(shlex.quote(word) for word in words)
    done = subprocess.run(
        ["bash", "-c", call],
        env=Plugin.getEnviron(),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise CannotMeasure(lines[-1] if lines else f"tomotwin {words[0]} ended with {done.returncode}.")
    return done.stdout


def _across(text: str) -> Dict[str, float]:
    return {source: float(number) for source, number in ACROSS.findall(text)}


def rounded(diameter: float) -> float:
    """Up to the next 5 A."""
    return ROUNDED_TO_A * float(np.ceil(diameter / ROUNDED_TO_A))


class TwinDiameterWizard(Wizard):
    """Measures how large the particles are."""

    _targets = [(ProtTwinReferencePicking, ["diameter"]), (ProtTwinEvaluatePicks, ["diameter"])]

    def show(self, form: Any, *params: Any) -> None:
        try:
            found = self._measured(form.protocol)
        except CannotMeasure as error:
            showWarning(TITLE, str(error), form.root)
            return
        largest = rounded(max(found.values()))
        lines = "\n".join(f"  {name}: {diameter:.0f} Å" for name, diameter in found.items())
        more = "" if len(found) == 1 else f"\n{largest:g} Å, the largest, holds for all; 0 takes each its own."
        form.setVar("diameter", largest)
        showInfo(TITLE, f"Measured:\n{lines}{more}", form.root)

    @staticmethod
    def _measured(protocol: Any) -> Dict[str, float]:
        if isinstance(protocol, ProtTwinReferencePicking):
            return measured_diameters(protocol)
        if protocol.inputPicks.get() is None or protocol.inputTruth.get() is None:
            raise CannotMeasure("Choose picks and true positions first.")
        asked = protocol.diameter.get()
        protocol.diameter.set(0)  # what the sets say, not what stands in the form
        try:
            found = chosen_diameters(protocol, chosen_kinds(protocol))
        except ValueError as error:
            raise CannotMeasure(f"Same kinds: {error}") from error
        finally:
            protocol.diameter.set(asked)
        if not found:
            raise CannotMeasure("Neither set knows how large its particles are: give the diameter in Å.")
        return found


class TwinBoxSizeWizard(Wizard):
    """The box that the largest target wants, in voxels of the tomograms."""

    _targets = [(ProtTwinReferencePicking, ["boxSize"])]

    def show(self, form: Any, *params: Any) -> None:
        protocol = form.protocol
        embeddings = protocol.inputEmbeddings.get()
        if embeddings is None:
            showWarning(TITLE, "Choose embedded tomograms first: their voxel size is needed.", form.root)
            return
        try:
            diameter = protocol.diameter.get() or max(measured_diameters(protocol).values())
        except CannotMeasure as error:
            showWarning(TITLE, str(error), form.root)
            return
        form.setVar("boxSize", box_of(diameter, embeddings.getSamplingRate()))


# ------------------------------ planes ------------------------------
class TwinZRangeWizard(Wizard):
    """Choose the first and the last plane on side views of the tomograms."""

    _targets = [
        (protocol, ["zFirst", "zLast"])
        for protocol in (ProtTwinReferencePicking, ProtTwinClusterPicking, ProtTwinCreateMask)
    ]

    def show(self, form: Any, *params: Any) -> None:
        tomograms = tomograms_of(form.protocol)
        if not tomograms:
            showWarning(TITLE, "Choose tomograms first.", form.root)
            return
        ZRangePlotter(
            tomograms, planes_of(form.protocol), lambda first, last: use_planes(form, first, last), TITLE
        ).show()


def tomograms_of(protocol: Any) -> List[Tomogram]:
    """The tomograms that a form is about, embedded or not."""
    if hasattr(protocol, "inputTomograms"):
        items = protocol.inputTomograms.get()
    else:
        embeddings = protocol.inputEmbeddings.get()
        items = None if embeddings is None else embeddings.getTomograms()
    found = [] if items is None else [item.clone() for item in enabled_items(items)]
    return [item for item in found if os.path.exists(item.getFileName().split(":")[0])]


def planes_of(protocol: Any) -> Optional[Tuple[int, int]]:
    """The planes that stand in a form."""
    first, last = protocol.zFirst.get(), protocol.zLast.get()
    return None if first is None or last is None else (first, last)


def use_planes(form: Any, first: int, last: int) -> None:
    """Write planes into a form."""
    form.setVar("zFirst", first)
    form.setVar("zLast", last)


# ------------------------------ threshold ------------------------------
class TwinThresholdWizard(Wizard):
    """Choose the threshold in the picking window, on the candidates that the run before has listed."""

    _targets = [
        (protocol, ["threshold", "thresholdMode"]) for protocol in (ProtTwinReferencePicking, ProtTwinClusterPicking)
    ]

    def show(self, form: Any, *params: Any) -> None:
        protocol = form.protocol
        coordinates = getattr(protocol, OUTPUT_COORDINATES, None)
        if coordinates is None or not coordinates.getSize():
            showWarning(
                TITLE,
                "There are no candidates yet to look at: run the protocol once with the proposed threshold, then come back here; "
                "continuing with another threshold is quick.",
                form.root,
            )
            return
        from tomotwin_view.window import PicksWindow

        picks = ViewedPicks(coordinates, protocol)
        self.window = PicksWindow(
            picks.session,
            lambda session: use_threshold(form, session),
            "use in the form",
            TITLE + " threshold",
            form.root,
        )


def use_threshold(form: Any, session: Any) -> str:
    """Write the threshold of the target and the tomogram that are shown into a form, which takes one for all; returns a
    sentence about it.

    Raises
    ------
    RuntimeError
        Where there is none, since the target has no candidates there.
    """
    name, tsId = session.targets[session.edited], session.tomograms[session.current].name
    value = float(session.score_min[session.current, session.edited])
    if not np.isfinite(value):
        raise RuntimeError(f"There are no candidates of {name} in {tsId}: choose another target or tomogram.")
    threshold = round(value, 4)
    form.setVar("thresholdMode", THRESHOLD_NUMBER)
    form.setVar("threshold", threshold)
    others = session.score_min[np.isfinite(session.score_min)]
    if np.ptp(others) < 1e-6:
        return f"The form now takes {threshold:g}."
    return (
        f"The form now takes {threshold:g}, that of {name} in {tsId}, for all targets and tomograms. Analyze Results keeps "
        "thresholds that differ: it makes a new output of the run."
    )
