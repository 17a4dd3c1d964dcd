"""Domain randomisation: one draw of everything about a tomogram.

What training sees must hold what users have: the sample, how it was imaged and reconstructed, and what was done to the
file afterwards are drawn from wide distributions, which the docstrings of the three draws state: `random_sample` here,
`random_acquisition` in acquisition.py, `random_delivery` in delivery.py. `usual_experiment` draws from the middle of that,
where most tomograms come from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tomotwin_core.simulation.acquisition import Acquisition, random_acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.delivery import Delivery, random_delivery

_A2_PER_UM2 = 1e8
# What a tomogram may hold beside molecules: in how many tomograms, and how many per square micrometre of their field.
_FURNITURE = (
    ("vesicles", 0.35, 12.0),
    ("membranes", 0.20, 3.0),
    ("gold", 0.40, 90.0),
    ("actin", 0.20, 30.0),
    ("microtubules", 0.12, 5.0),
)
_CARBON = 0.05


def random_experiment(
    rng: np.random.Generator, settings: SampleSettings
) -> tuple[SampleSettings, Acquisition, Delivery]:
    """Sample, acquisition and delivery of one tomogram; field, voxel size and molecules stay as the settings have them."""
    return random_sample(rng, settings), random_acquisition(rng), random_delivery(rng, settings.voxel_size_A)


def usual_experiment(
    rng: np.random.Generator, settings: SampleSettings
) -> tuple[SampleSettings, Acquisition, Delivery]:
    """The same for a tomogram taken as most are, and as the TomoTwin paper's: any sample; 60 degrees to both sides, or 54, by 2
    or 3; dose U(100, 160) e/A^2, defocus U(2, 5) um, shift errors U(1, 4) A, CTF corrected in half; all else Acquisition's
    defaults, delivered as reconstructed."""
    half_range = float(rng.choice([54.0, 60.0], p=[0.3, 0.7]))
    acquisition = Acquisition(
        tilt_min_deg=-half_range,
        tilt_max_deg=half_range,
        tilt_step_deg=float(rng.choice([2.0, 3.0])),
        dose_e_per_A2=float(rng.uniform(100, 160)),
        defocus_um=float(rng.uniform(2, 5)),
        shift_error_A=float(rng.uniform(1, 4)),
        ctf_corrected=bool(rng.random() < 0.5),
    )
    return random_sample(rng, settings), acquisition, Delivery()


def random_sample(rng: np.random.Generator, settings: SampleSettings) -> SampleSettings:
    """Draw what the ice is like and what lies in it beside the molecules.

    | quantity | drawn from |
    |---|---|
    | thickness of the ice | 0.7 to 1.5 of the settings', so that it may fill the box or leave empty space |
    | slab tilt about x and y | N(0, 4) degrees, within 15 |
    | unevenness of each surface | 0 to 8 % of the thickness |
    | vesicles, membranes, gold, actin, microtubules | in 35, 20, 40, 20, 12 % of tomograms; one and Poisson of 12, 3, 90, 30, 5 per um^2 more |
    | carbon edge | in 5 %, 120 to 200 A thick |
    | share of the ice in bodies | 0.3 to 1 times the settings' |
    """
    ny, nx = settings.shape[1:]
    field_um2 = ny * nx * settings.voxel_size_A**2 / _A2_PER_UM2
    counts: dict[str, Any] = {
        name: 1 + int(rng.poisson(per_um2 * field_um2)) if rng.random() < share else 0
        for name, share, per_um2 in _FURNITURE
    }
    thickness = settings.thickness_A * rng.uniform(0.7, 1.5)
    tilt_x, tilt_y = np.clip(rng.normal(0.0, 4.0, 2), -15.0, 15.0)
    return replace(
        settings,
        **counts,
        thickness_A=float(thickness),
        slab_tilt_deg=(float(tilt_x), float(tilt_y)),
        ice_unevenness_A=float(thickness * rng.uniform(0.0, 0.08)),
        carbon_A=float(rng.uniform(120.0, 200.0)) if rng.random() < _CARBON else 0.0,
        occupied=float(settings.occupied * rng.uniform(0.3, 1.0)),
    )
