"""--project: the acquisition of a tomogram out of its project's files, with what the command line says over it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tomotwin_core.cli.options import acquisition_of

if TYPE_CHECKING:
    from tomotwin_core.project import TiltSeries
    from tomotwin_core.simulation.acquisition import Acquisition
    from tomotwin_core.tomogram import TomogramSource

# Autofocus and eucentric height leave so much between the underfocus that is set and that of the specimen.
_SET_WITHIN_UM = 0.5
_GRID = ("tilt_min", "tilt_max", "tilt_step")


def series_of(options: argparse.Namespace, tomogram: TomogramSource) -> TiltSeries | None:
    """The tilt series of a tomogram, told in one line: of --project, else of files beside the tomogram that are its own beyond
    doubt; None where there are none. What lies there by chance and cannot be read is told and passed over."""
    from tomotwin_core.errors import UserError
    from tomotwin_core.project import found_beside, read_project
    from tomotwin_core.remarks import remark

    if options.project is not None:
        series: TiltSeries | None = read_project(options.project).of(tomogram.name, tomogram.path.name)
    else:
        try:
            series = found_beside(tomogram.path, tomogram.name)
        except UserError as error:
            remark(f"{error}; the acquisition is that of the options")
            return None
    if series is not None:
        print(f"{tomogram.name}: acquisition from {series.source}: {series.described()}{_over(options)}")
    return series


def acquisition_for(options: argparse.Namespace, tomogram: TomogramSource) -> Acquisition:
    """How a tomogram was taken."""
    series = series_of(options, tomogram)
    base = acquisition_of(options)
    return base if series is None else overridden(series, base, given_of(options))


def acquisition_and_defocus(
    options: argparse.Namespace, tomograms: Sequence[str] = ()
) -> tuple[Acquisition, tuple[float, float]]:
    """How tomograms were taken that share references, and the range of their underfocus (um).

    tomograms : their names, if they are known; else all of the project count.
    """
    base, defocus_um = acquisition_of(options), (options.defocus[0], options.defocus[1])
    if options.project is None:
        return base, defocus_um
    return taken_as_project(options, base, defocus_um, tomograms, _SET_WITHIN_UM)


def taken_as_project(
    options: argparse.Namespace,
    base: Acquisition,
    defocus_um: tuple[float, float],
    tomograms: Sequence[str] = (),
    set_within_um: float = 0.0,
) -> tuple[Acquisition, tuple[float, float]]:
    """The acquisition of --project, with `base` where it says nothing, and the range of its underfocus (um), told in one line.

    set_within_um : how far from an underfocus that was only set and not measured the true one may lie.

    Angles and exposures are those of the series whose underfocus is in the middle.
    """
    from tomotwin_core.project import read_project

    project = read_project(options.project)
    series = [project.of(name) for name in tomograms] or project.all()
    series = sorted({s.name: s for s in series}.values(), key=lambda s: s.mean_defocus_um or 0.0)
    typical = series[len(series) // 2]
    known = [(s.mean_defocus_um, set_within_um * s.nominal_defocus) for s in series if s.mean_defocus_um is not None]
    if len(known) == len(series) and "defocus" not in given_of(options):
        defocus_um = max(min(d - w for d, w in known), 0.1), min(max(d + w for d, w in known), 20.0)
    of = f" ({len(series)} tilt series, angles and exposures of {typical.name})" if len(series) > 1 else ""
    print(
        f"acquisition from {typical.source}{of}: {typical.described()}; simulated at underfocus {defocus_um[0]:.3g} to "
        f"{defocus_um[1]:.3g} um{_over(options)}"
    )
    return overridden(typical, base, given_of(options)), defocus_um


def overridden(series: TiltSeries, base: Acquisition, given: frozenset[str]) -> Acquisition:
    """The series' acquisition with the options that were given over it: angles make a regular grid again, a dose scales the
    exposures, a range of underfocus has its middle for all tilts.

    base : what the options say.  given : names of those that the user gave.
    """
    from dataclasses import replace

    taken = series.acquisition(base)
    own = taken.per_tilt
    assert own is not None
    if "voltage" in given:
        taken = replace(taken, voltage_kV=base.voltage_kV)
    if "dose" in given:
        scale = base.dose_e_per_A2 / taken.dose_e_per_A2
        exposures, doses = (tuple(scale * e for e in v) for v in (own.exposure_e_per_A2, own.dose_e_per_A2))
        own = replace(own, exposure_e_per_A2=exposures, dose_e_per_A2=doses)
        taken = replace(taken, dose_e_per_A2=base.dose_e_per_A2, per_tilt=own)
    if "defocus" in given:
        own = replace(own, defocus_offset_um=())
        taken = replace(taken, defocus_um=base.defocus_um, per_tilt=own)
    if given & set(_GRID):
        grid = {f"{name}_deg": getattr(base if name in given else taken, f"{name}_deg") for name in _GRID}
        taken = replace(taken, per_tilt=None, **grid)
    return taken


def given_of(options: argparse.Namespace) -> frozenset[str]:
    """The options of the acquisition that the user gave."""
    given: frozenset[str] = getattr(options, "given", frozenset())
    return given


def _over(options: argparse.Namespace) -> str:
    said = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given_of(options)))
    return f"; {said} as given" if said else ""
