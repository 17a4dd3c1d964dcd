"""An aligned tilt series on disk, as Scipion, IMOD and RELION's neighbours read it.

    NAME.st        the images, a stack [tilt, y, x] in rising order of the tilts, tilt axis along y
    NAME.rawtlt    one tilt angle (degrees) per line, in that order
    NAME.st.mdoc   SerialEM's description: pixel size, voltage, and for each image its tilt, exposure and time

Scipion's *import tilt-series* reads the mdoc file (pattern ``*.mdoc``; answer Yes to "Have images been aligned?"). IMOD
reconstructs with ``tilt -InputProjections NAME.st -OutputFile NAME.rec -TILTFILE NAME.rawtlt -THICKNESS NZ``.
Format: https://bio3d.colorado.edu/SerialEM/hlp/html/about_formats.htm
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import mrcfile
import numpy as np
from numpy.typing import NDArray

from tomotwin_core import __version__
from tomotwin_core.files import atomic_path
from tomotwin_core.simulation.acquisition import Acquisition

# scipion-em-tomo takes an angle of exactly 0 for one that is not given and refuses the file; at the rim of a field of 4096
# pixels this one moves the image by 0.04 pixels.
_TILT_AXIS_DEG = 0.001
# Times only tell the order of the exposures; fixed ones keep the files of one seed the same.
_FIRST_EXPOSURE, _BETWEEN_EXPOSURES = datetime(2000, 1, 1), timedelta(minutes=1)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def series_paths(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Where the images, the angles and the description are written."""
    return folder / f"{name}.st", folder / f"{name}.rawtlt", folder / f"{name}.st.mdoc"


def write_tilt_series(
    folder: Path, name: str, images: NDArray[np.float32], pixel_size_A: float, acquisition: Acquisition
) -> None:
    """Write the three files of a tilt series.

    images : float32 [tilt, y, x], in the order of `acquisition.tilts_deg`.
    """
    tilts = acquisition.tilts_deg
    if len(images) != len(tilts):
        raise ValueError(f"{len(images)} images of {len(tilts)} tilts")
    stack, angles, description = series_paths(folder, name)
    with atomic_path(stack) as temporary, mrcfile.new(str(temporary)) as mrc:
        mrc.set_data(np.ascontiguousarray(images, np.float32))
        mrc.set_image_stack()
        mrc.voxel_size = pixel_size_A
        mrc.header.label[0] = f"tomotwin {__version__}".encode()
        mrc.header.nlabl = 1
    with atomic_path(angles) as temporary:
        temporary.write_text("".join(f"{tilt:.3f}\n" for tilt in tilts))
    with atomic_path(description) as temporary:
        temporary.write_text(_mdoc(stack.name, images, pixel_size_A, acquisition))


def _mdoc(stack: str, images: NDArray[np.float32], pixel_size_A: float, acquisition: Acquisition) -> str:
    _, ny, nx = images.shape
    doses = acquisition.doses_e_per_A2
    # Missing tilts were exposed too: their dose and their time have passed.
    prior = np.maximum(acquisition.exposure_before_e_per_A2 - doses / 2, 0)
    order = np.round(prior / acquisition.dose_per_tilt_e_per_A2)
    if acquisition.per_tilt:  # of uneven doses, too
        order = np.argsort(np.argsort(prior, kind="stable"))
    lines = [
        f"PixelSpacing = {pixel_size_A:g}",
        f"Voltage = {acquisition.voltage_kV:g}",
        f"ImageFile = {stack}",
        f"ImageSize = {nx} {ny}",
        "DataMode = 2",
        "",
        f"[T = tomotwin {__version__}: simulated and aligned tilt series]",
        "",
        # The word before the equals sign and the one after the number are what readers look for.
        f"[T =     Tilt axis angle = {_TILT_AXIS_DEG:g}, binning = 1  spot = 1  camera = 0]",
    ]
    for z, (tilt, image) in enumerate(zip(acquisition.tilts_deg, images, strict=True)):
        time = _FIRST_EXPOSURE + int(order[z]) * _BETWEEN_EXPOSURES
        lines += [
            "",
            f"[ZValue = {z}]",
            f"TiltAngle = {tilt:.3f}",
            f"Magnification = {round(50000 / pixel_size_A)}",
            f"PixelSpacing = {pixel_size_A:g}",
            f"ExposureDose = {doses[z]:.6g}",
            f"PriorRecordDose = {prior[z]:.6g}",
            f"Defocus = {-acquisition.defoci_um[z]:g}",
            f"TargetDefocus = {-acquisition.defocus_um:g}",
            f"RotationAngle = {_TILT_AXIS_DEG:g}",
            "Binning = 1",
            f"MinMaxMean = {image.min():.6g} {image.max():.6g} {image.mean():.6g}",
            f"DateTime = {time:%d}-{_MONTHS[time.month - 1]}-{time:%Y}  {time:%H:%M:%S}",
        ]
    return "\n".join(lines) + "\n"
