"""What was measured of each tilt of a real series, where a regular scheme and one defocus do not say it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tomotwin_core.errors import UserError

_STEEPEST_DEG = 85.0
# A tilt series holds more tilts than this in no program.
_MOST_TILTS = 1000
_LIMITS = (
    ("exposure_e_per_A2", 0.0, 2000.0),
    ("dose_e_per_A2", 0.0, 2000.0),
    ("defocus_offset_um", -20.0, 20.0),
    ("astigmatism_um", 0.0, 5.0),
    ("astigmatism_angle_deg", -360.0, 360.0),
)


@dataclass(frozen=True)
class PerTilt:
    """The recorded tilts in rising order of their angles. What is not known is empty, all else has one value per tilt.

    tilt_deg : angles, right-handed about +y, as `gridding.TiltGeometry` takes them; any spacing.
    exposure_e_per_A2 : accumulated exposure at the middle of each tilt, in whatever order they were taken.
    dose_e_per_A2 : exposure of each tilt alone.
    defocus_offset_um : underfocus at the tilt axis, less `Acquisition.defocus_um`.
    astigmatism_um, astigmatism_angle_deg : as in `Acquisition`, of each tilt.
    defocus_hand : 1 where underfocus grows with x sin(tilt), as where the beam runs towards -z; -1 where it falls.

    Raises
    ------
    UserError
        Where numbers of tilts differ, angles fall or a value cannot be.
    """

    tilt_deg: tuple[float, ...]
    exposure_e_per_A2: tuple[float, ...] = ()
    dose_e_per_A2: tuple[float, ...] = ()
    defocus_offset_um: tuple[float, ...] = ()
    astigmatism_um: tuple[float, ...] = ()
    astigmatism_angle_deg: tuple[float, ...] = ()
    defocus_hand: int = 1

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> PerTilt:
        """As it was stored in JSON; what it does not know, of a later version, is passed over."""
        known = {f.name for f in fields(cls)}
        try:
            return cls(**{name: value for name, value in record.items() if name in known})
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"per_tilt is no tilt series ({error}): must be as it was written") from None

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Sequence):  # what was stored as JSON comes back as a list
                object.__setattr__(self, f.name, tuple(float(one) for one in value))
        tilts = self.tilt_deg
        if not 2 <= len(tilts) <= _MOST_TILTS:
            raise UserError(f"{len(tilts)} tilts: a tilt series must have 2 to {_MOST_TILTS}")
        if not all(abs(t) <= _STEEPEST_DEG for t in tilts) or list(tilts) != sorted(tilts) or tilts[0] == tilts[-1]:
            raise UserError(
                f"tilts {tilts[0]:g} to {tilts[-1]:g} degrees: they must rise within -{_STEEPEST_DEG:g} to {_STEEPEST_DEG:g}"
            )
        for name, low, high in _LIMITS:
            values = getattr(self, name)
            if values and len(values) != len(tilts):
                raise UserError(f"{name} has {len(values)} values: there must be one for each of {len(tilts)} tilts")
            for value in values:
                if not (math.isfinite(value) and low <= value <= high):
                    raise UserError(f"{name} = {value:g}: must lie within {low:g} to {high:g}")
        if self.defocus_hand not in (1, -1):
            raise UserError(f"defocus_hand {self.defocus_hand}: must be 1 or -1")
