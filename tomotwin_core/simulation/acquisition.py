"""How a tilt series is taken and reconstructed: every quantity with its unit, and a random draw of all of them for
training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tomotwin_core.errors import UserError


@dataclass(frozen=True)
class Acquisition:
    """One tilt series. Defaults are those of the paper's set where it states them.

    tilt_min_deg, tilt_max_deg, tilt_step_deg : the tilts; tilt 0 is exposed first (dose-symmetric, Hagen et al. 2017).
    dose_e_per_A2 : of the whole series.  defocus_um : underfocus at the centre.  voltage_kV, cs_mm, amplitude_contrast : the microscope.
    dqe : detector quantum efficiency, taken as fewer electrons.  inelastic_mfp_nm : mean free path for the loss with path length.
    shift_error_A : residual alignment error, one draw per tilt and axis.  ice_noise : standard deviation of the solvent's own density in
    multiples of that of water molecules placed at random in a voxel.
    ctf_corrected : phases flipped before reconstruction.  dose_weighted : tilts filtered by accumulated exposure.
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

    def __post_init__(self) -> None:
        if not (-85 <= self.tilt_min_deg < self.tilt_max_deg <= 85 and 0.1 <= self.tilt_step_deg <= 20):
            raise UserError(
                f"tilts {self.tilt_min_deg} to {self.tilt_max_deg} by {self.tilt_step_deg} degrees: "
                "the range must rise within -85 to 85 and the step lie within 0.1 to 20"
            )
        for name, low, high in (
            ("dose_e_per_A2", 1, 2000),
            ("defocus_um", 0.1, 20),
            ("voltage_kV", 60, 1000),
            ("dqe", 0.01, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise UserError(f"{name} = {getattr(self, name)}: must lie within {low} to {high}")

    @property
    def tilts_deg(self) -> np.ndarray:
        """Tilt angles in rising order, (n_tilts,)."""
        count = int(np.floor((self.tilt_max_deg - self.tilt_min_deg) / self.tilt_step_deg + 1e-6)) + 1
        return self.tilt_min_deg + self.tilt_step_deg * np.arange(count)

    @property
    def exposure_before_e_per_A2(self) -> np.ndarray:
        """Accumulated exposure at the middle of each tilt of a dose-symmetric series, in the order of `tilts_deg`."""
        tilts = self.tilts_deg
        order = np.argsort(np.abs(tilts) + 1e-3 * (tilts < 0), kind="stable")
        rank = np.empty(len(tilts))
        rank[order] = np.arange(len(tilts))
        return (rank + 0.5) * self.dose_e_per_A2 / len(tilts)


def random_acquisition(rng: np.random.Generator) -> Acquisition:
    """Draw an acquisition as users have them; what training and references see."""
    half_range = rng.uniform(48, 66)
    off_centre = rng.normal(0, 4)
    return Acquisition(
        tilt_min_deg=float(max(-half_range + off_centre, -70)),
        tilt_max_deg=float(min(half_range + off_centre, 70)),
        tilt_step_deg=float(rng.choice([2.0, 2.0, 3.0, 3.0])),
        dose_e_per_A2=float(np.exp(rng.uniform(np.log(70), np.log(180)))),
        defocus_um=float(rng.uniform(1.8, 6.0)),
        voltage_kV=float(rng.choice([300.0, 300.0, 200.0])),
        amplitude_contrast=float(rng.uniform(0.06, 0.12)),
        dqe=float(rng.uniform(0.6, 0.9)),
        shift_error_A=float(rng.uniform(0.0, 8.0)),
        ice_noise=float(rng.uniform(0.2, 1.0)),
        ctf_corrected=bool(rng.random() < 0.4),
        dose_weighted=bool(rng.random() < 0.4),
    )
