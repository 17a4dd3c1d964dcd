"""One tilt series as its project describes it, in one form for all programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomotwin_core.errors import UserError
from tomotwin_core.remarks import remark
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.per_tilt import PerTilt

Values = tuple[float, ...]
# Per tilt: least and greatest value that is believed.
_LIMITS = {
    "tilt_deg": (-85.0, 85.0),
    "exposure_before_e_per_A2": (0.0, 2000.0),
    "dose_e_per_A2": (0.0, 2000.0),
    "defocus_um": (0.05, 25.0),
    "astigmatism_um": (0.0, 5.0),
    "astigmatism_angle_deg": (-1000.0, 1000.0),
    "phase_shift_deg": (-360.0, 360.0),
    "tilt_axis_deg": (-360.0, 360.0),
}
# Less in all is another unit, or none.
_LEAST_E_PER_A2 = 1.0
_OF_SERIES = {
    "voltage_kV": (60.0, 1000.0),
    "cs_mm": (0.0, 20.0),
    "amplitude_contrast": (0.0, 0.5),
    "pixel_size_A": (0.1, 50.0),
}


@dataclass(frozen=True)
class TiltSeries:
    """What is known of a tilt series. Tuples have one value per image, in the order of the stack; empty, or None, where
    nothing is known.

    name : of the series or its tomogram.  source : the files it was read from, for the user.
    tilt_deg : tilt angles as the tomogram was reconstructed, right-handed about +y: the point (x, z) counted from the
    middle is imaged at x cos(tilt) + z sin(tilt), as in `simulation.gridding`.
    tilt_axis_deg : of the tilt axis in the image, from y, counter-clockwise.
    exposure_before_e_per_A2 : exposure that the specimen had had when a tilt began.
    dose_e_per_A2 : exposure of each tilt alone.
    defocus_um : underfocus at the tilt axis, mean of both axes.
    astigmatism_um : half the difference of greatest and least underfocus.
    astigmatism_angle_deg : direction of the greatest underfocus in the image of the stack, from x towards y.
    phase_shift_deg : of a phase plate.
    excluded : images that are not in the tomogram.
    defocus_hand : 1 where underfocus grows with x sin(tilt), -1 where it falls with it, None where no file says it.
    pixel_size_A : of the tilt images, unbinned.
    nominal_defocus : defocus_um is what the microscope was set to, and was not measured.
    """

    name: str
    source: str
    tilt_deg: Values
    tilt_axis_deg: Values = ()
    exposure_before_e_per_A2: Values = ()
    dose_e_per_A2: Values = ()
    defocus_um: Values = ()
    astigmatism_um: Values = ()
    astigmatism_angle_deg: Values = ()
    phase_shift_deg: Values = ()
    excluded: tuple[bool, ...] = ()
    defocus_hand: int | None = None
    voltage_kV: float | None = None
    cs_mm: float | None = None
    amplitude_contrast: float | None = None
    pixel_size_A: float | None = None
    nominal_defocus: bool = False

    def __post_init__(self) -> None:
        if len(self.tilt_deg) < 2:
            raise UserError(f"{self.source}: {len(self.tilt_deg)} tilts, which are no tilt series; give another file")
        for f in fields(self):
            values = getattr(self, f.name)
            if isinstance(values, tuple):
                if values and len(values) != len(self.tilt_deg):
                    raise UserError(
                        f"{self.source}: {len(self.tilt_deg)} tilts, but {len(values)} values of {f.name}; are the files of one series?"
                    )
                self._require(f.name, values, _LIMITS)
            elif f.name in _OF_SERIES and values is not None:
                self._require(f.name, (values,), _OF_SERIES)
        if len(set(self.kept(self.tilt_deg))) < 2:
            raise UserError(f"{self.source}: no two tilts differ among those that are not excluded; give another file")

    def _require(self, name: str, values: Sequence[float], limits: dict[str, tuple[float, float]]) -> None:
        if name in limits:
            low, high = limits[name]
            for value in values:
                if not (math.isfinite(value) and low <= value <= high):
                    raise UserError(
                        f"{self.source}: {name} = {value:g}, which must lie within {low:g} to {high:g}; correct the file"
                    )

    def kept(self, values: Sequence[float]) -> Values:
        """Those of the images that are in the tomogram, in rising order of their tilts; nothing of nothing."""
        if not values:
            return ()
        excluded = self.excluded or (False,) * len(self.tilt_deg)
        order = np.argsort(np.array(self.tilt_deg), kind="stable")
        return tuple(float(values[i]) for i in order if not excluded[i])

    @property
    def mean_defocus_um(self) -> float | None:
        """Underfocus over the tilts of the tomogram; None where it is not known."""
        kept = self.kept(self.defocus_um)
        return float(np.mean(kept)) if kept else None

    def acquisition(self, base: Acquisition) -> Acquisition:
        """The series as the simulator takes it: `base` with everything that is known here.

        Exposures that are not known follow the scheme of `base`; where the dose of each tilt is not known it is the step of
        the accumulated one. Astigmatism needs the direction of the tilt axis, and is left out without it.
        """
        tilts = self.kept(self.tilt_deg)
        known: dict[str, Any] = {
            name: value
            for name in ("voltage_kV", "cs_mm", "amplitude_contrast")
            if (value := getattr(self, name)) is not None
        }
        if self.phase_shift_deg:
            known["phase_shift_deg"] = float(np.clip(np.mean(np.abs(self.kept(self.phase_shift_deg))), 0, 170))
        before, doses = self._exposures()
        total = float(np.max(before + doses)) if len(before) else float(np.sum(self.dose_e_per_A2))
        exposed = total >= _LEAST_E_PER_A2
        if 0 < total < _LEAST_E_PER_A2:
            remark(
                f"{self.source}: {total:.3g} e/A^2 in all cannot be; the exposure is taken from the options (--dose)"
            )
        if exposed:
            known["dose_e_per_A2"] = total
        mean = self.mean_defocus_um
        offsets: Values = ()
        if mean is not None:
            known["defocus_um"] = max(mean, 0.1)
            offsets = tuple(d - known["defocus_um"] for d in self.kept(self.defocus_um))
        size, angle = self._astigmatism()
        steps = np.diff(tilts)
        per_tilt = PerTilt(
            tilts,
            self.kept(tuple(before + doses / 2)) if exposed and len(before) else (),
            self.kept(tuple(doses)) if exposed and len(doses) else (),
            offsets,
            size,
            angle,
            self.defocus_hand or 1,
        )
        return replace(
            base,
            **known,
            tilt_min_deg=tilts[0],
            tilt_max_deg=tilts[-1],
            tilt_step_deg=float(np.clip(np.median(steps[steps > 0]), 0.1, 20)),
            missing_tilts_deg=(),
            per_tilt=per_tilt,
        )

    def _exposures(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Exposure before each image and of it (n,), both empty where the order of exposures is not known."""
        before, doses = np.array(self.exposure_before_e_per_A2), np.array(self.dose_e_per_A2)
        if not len(before):
            return before, before
        if not len(doses):
            steps = np.diff(np.unique(before))
            doses = np.full(len(before), np.median(steps) if len(steps) else 0.0)
        return before, doses

    def _astigmatism(self) -> tuple[Values, Values]:
        if not (self.astigmatism_um and self.astigmatism_angle_deg and self.tilt_axis_deg):
            return (), ()
        aligned = np.array(self.astigmatism_angle_deg) - np.array(self.tilt_axis_deg)
        return self.kept(self.astigmatism_um), self.kept(tuple((aligned + 90) % 180 - 90))

    def described(self) -> str:
        """All that is known, in one line."""
        tilts = self.kept(self.tilt_deg)
        parts = [f"{len(tilts)} tilts {tilts[0]:.4g} to {tilts[-1]:.4g} degrees"]
        if any(self.excluded):
            parts[0] += f" ({sum(self.excluded)} excluded)"
        if self.tilt_axis_deg:
            parts.append(f"tilt axis at {np.mean(self.tilt_axis_deg):.4g} degrees")
        before, doses = self._exposures()
        if len(before) and (before + doses).max() > 0:
            first = self.tilt_deg[int(np.argmin(before))]
            parts.append(f"{(before + doses).max():.4g} e/A^2 in all, the tilt of {first:.3g} first")
        elif sum(self.dose_e_per_A2) > 0:
            parts.append(f"{sum(self.dose_e_per_A2):.4g} e/A^2 in all, in an order that is not said")
        if self.defocus_um:
            kept = self.kept(self.defocus_um)
            spread = f" ({min(kept):.3g} to {max(kept):.3g})" if max(kept) - min(kept) > 5e-3 else ""
            parts.append(
                f"underfocus {np.mean(kept):.3g} um{spread}" + (" as it was set" if self.nominal_defocus else "")
            )
        if self.astigmatism_um:
            parts.append(f"astigmatism {np.mean(self.kept(self.astigmatism_um)):.2g} um")
        if self.phase_shift_deg and max(map(abs, self.phase_shift_deg)) > 0:
            parts.append(f"phase shift {np.mean(self.kept(self.phase_shift_deg)):.3g} degrees")
        if self.defocus_hand is not None:
            parts.append(f"underfocus {'grows' if self.defocus_hand > 0 else 'falls'} with x sin(tilt)")
        for name, unit in (("voltage_kV", "kV"), ("cs_mm", "mm Cs"), ("amplitude_contrast", "amplitude contrast")):
            if getattr(self, name) is not None:
                parts.append(f"{getattr(self, name):g} {unit}")
        if self.pixel_size_A is not None:
            parts.append(f"images of {self.pixel_size_A:.4g} A per pixel")
        return ", ".join(parts)
