"""How a tilt series is taken and reconstructed: every quantity with its unit, and a random draw of all of them for
training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from tomotwin_core.errors import UserError
from tomotwin_core.simulation.detector import DetectorName
from tomotwin_core.simulation.per_tilt import PerTilt

Scheme = Literal["dose-symmetric", "bidirectional", "continuous"]
Filter = Literal["ramp", "shepp-logan", "cosine", "hamming", "hann", "gaussian"]

# Quantity, least and greatest value.
_LIMITS = (
    ("start_tilt_deg", -85, 85),
    ("dose_e_per_A2", 1, 2000),
    ("defocus_um", 0.1, 20),
    ("astigmatism_um", 0, 5),
    ("astigmatism_angle_deg", -180, 180),
    ("phase_shift_deg", 0, 170),
    ("voltage_kV", 60, 1000),
    ("cs_mm", 0, 20),
    ("amplitude_contrast", 0, 0.5),
    ("dqe", 0.01, 1),
    ("detector_pixel_A", 0.1, 50),
    ("inelastic_mfp_nm", 10, 10000),
    ("ice_noise", 0, 10),
    ("shift_error_A", 0, 500),
    ("tilt_error_deg", 0, 5),
    ("rotation_error_deg", 0, 10),
    ("tilt_axis_error_deg", 0, 10),
    ("sirt_iterations", 0, 1000),
)


@dataclass(frozen=True)
class Acquisition:
    """One tilt series and its reconstruction. Defaults are those of the paper's set where it states them.

    tilt_min_deg, tilt_max_deg, tilt_step_deg : the tilts that were planned.
    dose_e_per_A2 : electrons per A^2 of the whole series, missing tilts included.
    defocus_um : underfocus at the centre.
    voltage_kV : acceleration voltage.  cs_mm : spherical aberration.  amplitude_contrast : share of the contrast.
    dqe : detective quantum efficiency at low frequency, taken as fewer electrons.
    inelastic_mfp_nm : mean free path for the loss of electrons with path length.
    shift_error_A : residual alignment error of the images, standard deviation per tilt and axis.
    ice_noise : standard deviation of the solvent's own density in multiples of that of water molecules placed at random.
    ctf_corrected : phases flipped before reconstruction.
    dose_weighted : tilts filtered by accumulated exposure.
    scheme : order of exposure. Dose-symmetric alternates around the start (Hagen et al. 2017), bidirectional goes from
    the start to the greatest tilt and then from beside the start to the least, continuous from the least to the greatest.
    start_tilt_deg : where the first two schemes start, as at a lamella's pre-tilt.
    missing_tilts_deg : tilts that were exposed but are not in the series.
    astigmatism_um : half the difference between the greatest and the least underfocus.
    astigmatism_angle_deg : direction of the greatest underfocus from x (across the tilt axis) towards y.
    phase_shift_deg : that of a phase plate.
    detector : whose blur and noise the images have; ideal has no blur and white noise.
    detector_pixel_A : the detector's physical pixel at the specimen, before binning.
    tilt_error_deg : residual error of the tilt angles, standard deviation per tilt.
    rotation_error_deg : residual in-plane rotation of the images, standard deviation per tilt.
    tilt_axis_error_deg : residual error of the tilt axis's direction, standard deviation per series.
    filter : of the weighted back-projection; gaussian is the ramp up to 0.35 cycles per pixel that falls off beyond, as
    IMOD's default.
    sirt_iterations : weighting that looks like so many iterations of SIRT; 0 for none.
    per_tilt : a real series, tilt by tilt. Then its angles count and not tilt_min_deg to missing_tilts_deg, and of exposures,
    defocus and astigmatism what it knows; the scheme still orders exposures that it does not.
    """

    tilt_min_deg: float = -60.0
    tilt_max_deg: float = 60.0
    tilt_step_deg: float = 2.0
    dose_e_per_A2: float = 120.0
    defocus_um: float = 3.5
    voltage_kV: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.08
    dqe: float = 0.8
    inelastic_mfp_nm: float = 310.0
    shift_error_A: float = 3.0
    ice_noise: float = 0.5
    ctf_corrected: bool = False
    dose_weighted: bool = False
    scheme: Scheme = "dose-symmetric"
    start_tilt_deg: float = 0.0
    missing_tilts_deg: tuple[float, ...] = ()
    astigmatism_um: float = 0.0
    astigmatism_angle_deg: float = 0.0
    phase_shift_deg: float = 0.0
    detector: DetectorName = "K3"
    detector_pixel_A: float = 2.0
    tilt_error_deg: float = 0.1
    rotation_error_deg: float = 0.1
    tilt_axis_error_deg: float = 0.2
    filter: Filter = "ramp"
    sirt_iterations: int = 0
    per_tilt: PerTilt | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.per_tilt, PerTilt | None):  # as stored in JSON
            object.__setattr__(self, "per_tilt", PerTilt.of_record(self.per_tilt))
        if not (-85 <= self.tilt_min_deg < self.tilt_max_deg <= 85 and 0.1 <= self.tilt_step_deg <= 20):
            raise UserError(
                f"tilts {self.tilt_min_deg} to {self.tilt_max_deg} by {self.tilt_step_deg} degrees: "
                "the range must rise within -85 to 85 and the step lie within 0.1 to 20"
            )
        for name, low, high in _LIMITS:
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name} = {getattr(self, name)}: must lie within {low} to {high}")
        for name, known in (("scheme", Scheme), ("detector", DetectorName), ("filter", Filter)):
            if getattr(self, name) not in get_args(known):
                raise UserError(f"{name} = {getattr(self, name)}: must be one of {', '.join(get_args(known))}")
        for tilt in self.missing_tilts_deg:
            if np.abs(self._planned_tilts_deg - tilt).min() > 0.05 * self.tilt_step_deg:
                raise UserError(
                    f"missing_tilts_deg has {tilt:g}, which must be one of the tilts "
                    f"{self.tilt_min_deg:g} to {self.tilt_max_deg:g} by {self.tilt_step_deg:g} degrees"
                )
        if not self._recorded.any():
            raise UserError("missing_tilts_deg lists all tilts: one at least must be left")
        if self.per_tilt is not None and not ((self.defoci_um > 0) & (self.defoci_um <= 25)).all():
            raise UserError(
                f"underfocus of {self.defoci_um.min():g} to {self.defoci_um.max():g} um over the tilts: all must lie within 0 to 25"
            )

    @property
    def tilts_deg(self) -> np.ndarray:
        """Angles of the recorded tilts in rising order, (n_tilts,)."""
        return self._exposed_tilts_deg[self._recorded]

    @property
    def dose_per_tilt_e_per_A2(self) -> float:
        """Exposure of one tilt: the dose over all planned tilts."""
        return self.dose_e_per_A2 / len(self._exposed_tilts_deg)

    @property
    def doses_e_per_A2(self) -> np.ndarray:
        """Exposure of each recorded tilt, (n_tilts,)."""
        if self.per_tilt and self.per_tilt.dose_e_per_A2:
            return np.array(self.per_tilt.dose_e_per_A2)
        return np.full(len(self.tilts_deg), self.dose_per_tilt_e_per_A2)

    @property
    def defoci_um(self) -> np.ndarray:
        """Underfocus of each recorded tilt at the tilt axis, (n_tilts,)."""
        if self.per_tilt and self.per_tilt.defocus_offset_um:
            return self.defocus_um + np.array(self.per_tilt.defocus_offset_um)
        return np.full(len(self.tilts_deg), self.defocus_um)

    @property
    def exposure_order(self) -> np.ndarray:
        """Indices into `tilts_deg` in the order in which the tilts were exposed, (n_tilts,)."""
        return np.argsort(self.exposure_before_e_per_A2)

    @property
    def exposure_before_e_per_A2(self) -> np.ndarray:
        """Accumulated exposure at the middle of each tilt, missing tilts included, in the order of `tilts_deg`."""
        if self.per_tilt and self.per_tilt.exposure_e_per_A2:
            return np.array(self.per_tilt.exposure_e_per_A2)
        tilts = self._exposed_tilts_deg
        from_start = tilts - self.start_tilt_deg
        if self.scheme == "dose-symmetric":
            order = np.argsort(np.abs(from_start) + 1e-3 * (from_start < 0), kind="stable")
        elif self.scheme == "bidirectional":
            order = np.concatenate([np.flatnonzero(from_start >= 0), np.flatnonzero(from_start < 0)[::-1]])
        else:
            order = np.arange(len(tilts))
        rank = np.empty(len(tilts))
        rank[order] = np.arange(len(tilts))
        return ((rank + 0.5) * self.dose_per_tilt_e_per_A2)[self._recorded]

    @property
    def _exposed_tilts_deg(self) -> np.ndarray:
        return self._planned_tilts_deg if self.per_tilt is None else np.array(self.per_tilt.tilt_deg)

    @property
    def _planned_tilts_deg(self) -> np.ndarray:
        count = int(np.floor((self.tilt_max_deg - self.tilt_min_deg) / self.tilt_step_deg + 1e-6)) + 1
        return self.tilt_min_deg + self.tilt_step_deg * np.arange(count)

    @property
    def _recorded(self) -> np.ndarray:
        if self.per_tilt is not None:
            return np.ones(len(self.per_tilt.tilt_deg), bool)
        tilts = self._planned_tilts_deg
        missing = np.array(self.missing_tilts_deg)
        return (np.abs(tilts[:, None] - missing) > 0.05 * self.tilt_step_deg).all(1)


def random_acquisition(rng: np.random.Generator) -> Acquisition:
    """Draw an acquisition as users have them; what training and references see.

    | quantity | drawn from |
    |---|---|
    | tilts | half range U(48, 66), in 15 % U(40, 70) degrees, about a centre of N(0, 4), within 70; steps of 1 (5 %), 2 (40 %), 3 (45 %), 4 (5 %), 5 (5 %) |
    | scheme | dose-symmetric (70 %), bidirectional (20 %), continuous (10 %); start N(0, 4) |
    | missing tilts | in 30 % each tilt with a probability of U(0.02, 0.12) |
    | dose | log-uniform over 70 to 180 e/A^2 |
    | defocus | U(1.8, 6.0), in 15 % U(1.5, 8.0) um; with a phase plate U(0.4, 2.5) |
    | astigmatism | the size of N(0, 0.08) um in any direction |
    | phase plate | in 4 %, N(90, 20) degrees within 40 to 140 |
    | microscope | 300 kV (2 of 3) or 200 kV; Cs 2.7 (85 %), 2.0 (10 %) or 0.01 mm (5 %); amplitude contrast U(0.06, 0.12) |
    | detector | any with the same chance; DQE at low frequency U(0.6, 0.9); pixel log-uniform over 1.3 to 5.0 A |
    | ice | mean free path U(250, 400) nm, at 200 kV 0.75 of that; ice_noise U(0.2, 1.0) |
    | alignment errors | shift U(0, 8) A, tilt U(0, 0.5), rotation U(0, 0.3), tilt axis U(0, 1.0) degrees |
    | corrections | CTF corrected (40 %), dose weighted (40 %) |
    | filter | ramp (40 %), gaussian (30 %), one of the others (30 %); SIRT-like in 25 %, 3 to 30 iterations |
    """

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    def one_of(choices: Sequence[Any], probabilities: Sequence[float] | None = None) -> Any:
        return choices[rng.choice(len(choices), p=probabilities)]

    half_range = uniform(40, 70) if chance(0.15) else uniform(48, 66)
    centre = float(rng.normal(0, 4))
    low, high = max(centre - half_range, -70.0), min(centre + half_range, 70.0)
    step = one_of((1.0, 2.0, 3.0, 4.0, 5.0), (0.05, 0.4, 0.45, 0.05, 0.05))
    missing: tuple[float, ...] = ()
    if chance(0.3):
        planned = Acquisition(tilt_min_deg=low, tilt_max_deg=high, tilt_step_deg=step).tilts_deg
        missing = tuple(float(t) for t in planned[rng.random(len(planned)) < rng.uniform(0.02, 0.12)])
    phase_plate = chance(0.04)
    defocus_um = uniform(1.5, 8.0) if chance(0.15) else uniform(1.8, 6.0)
    voltage_kV = one_of((300.0, 200.0), (2 / 3, 1 / 3))
    return Acquisition(
        tilt_min_deg=low,
        tilt_max_deg=high,
        tilt_step_deg=step,
        scheme=one_of(get_args(Scheme), (0.7, 0.2, 0.1)),
        start_tilt_deg=float(rng.normal(0, 4)),
        missing_tilts_deg=missing,
        dose_e_per_A2=log_uniform(70, 180),
        defocus_um=uniform(0.4, 2.5) if phase_plate else defocus_um,
        astigmatism_um=float(np.abs(rng.normal(0, 0.08))),
        astigmatism_angle_deg=uniform(-90, 90),
        phase_shift_deg=float(np.clip(rng.normal(90, 20), 40, 140)) if phase_plate else 0.0,
        voltage_kV=voltage_kV,
        cs_mm=one_of((2.7, 2.0, 0.01), (0.85, 0.1, 0.05)),
        amplitude_contrast=uniform(0.06, 0.12),
        detector=one_of(get_args(DetectorName)),
        detector_pixel_A=log_uniform(1.3, 5.0),
        dqe=uniform(0.6, 0.9),
        inelastic_mfp_nm=uniform(250, 400) * (0.75 if voltage_kV < 250 else 1.0),
        ice_noise=uniform(0.2, 1.0),
        shift_error_A=uniform(0.0, 8.0),
        tilt_error_deg=uniform(0.0, 0.5),
        rotation_error_deg=uniform(0.0, 0.3),
        tilt_axis_error_deg=uniform(0.0, 1.0),
        ctf_corrected=chance(0.4),
        dose_weighted=chance(0.4),
        filter=one_of(get_args(Filter), (0.4, 0.075, 0.075, 0.075, 0.075, 0.3)),
        sirt_iterations=int(rng.integers(3, 31)) if chance(0.25) else 0,
    )
