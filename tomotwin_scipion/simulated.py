"""Simulated files of the engine as Scipion's objects: tomogram, aligned tilt series, label volume.

The engine leaves, for a tomogram NAME, ``NAME.mrc``, ``NAME_truth.star``, ``NAME.st`` with ``NAME.st.mdoc``, and on demand
``NAME_labels.mrc`` and ``NAME_noisefree.mrc``, all in one folder with ``simulation.json``.
"""

import glob
import json
import os
import re
from typing import Any, List, NamedTuple

import numpy as np
from pwem.objects import Transform
from tomo.convert.mdoc import MDoc
from tomo.objects import SetOfTiltSeries, TiltImage, TiltSeries, TomoAcquisition, Tomogram, TomoMask

from .convert import header_voxel_size
from .errors import TwinError

TRUTH = "_truth.star"
RECORD = "simulation.json"


class Tilt(NamedTuple):
    """One image of a tilt series: section of the stack (from 1), order of exposure (from 1), degrees, e/Å^2."""

    section: int
    order: int
    angle: float
    doseBefore: float
    dose: float


class Simulated(NamedTuple):
    """One tomogram that the engine finished: its molecules in the order in which they were named, the voxel size of the
    tomogram and the pixel size of the tilt series in A, the share of the ice that is taken, and protein in g/L."""

    name: str
    folder: str
    species: List[str]
    voxelSize: float
    pixelSize: float
    acquisition: TomoAcquisition
    tilts: List[Tilt]
    ctfCorrected: bool
    occupied: float
    concentration: float

    def path(self, ending: str) -> str:
        return os.path.join(self.folder, self.name + ending)


def read_simulated(folder: str) -> Simulated:
    """What the engine left in the folder of one tomogram.

    Raises
    ------
    TwinError
        When there is no truth, or the tilt series' mdoc cannot be read.
    """
    truths = glob.glob(os.path.join(glob.escape(folder), "*" + TRUTH))
    if len(truths) != 1:
        raise TwinError(f"{folder} holds {len(truths)} files *{TRUTH}: one is expected. See the log.")
    name = os.path.basename(truths[0])[: -len(TRUTH)]
    with open(os.path.join(folder, RECORD)) as file:
        record = json.load(file)
    own = record["tomograms"][name]
    settings, crowding = own["acquisition"], own["crowding"]
    path = os.path.join(folder, name)
    mdoc = MDoc(path + ".st.mdoc")
    problem = mdoc.read(isImportingTsMovies=False)
    if problem:
        raise TwinError(problem.strip())
    # Scipion's reader adds up the doses of the images that are there; a missing tilt was exposed too.
    with open(path + ".st.mdoc") as file:
        before = [float(dose) for dose in re.findall(r"^PriorRecordDose = (\S+)", file.read(), flags=re.MULTILINE)]
    tilts = [
        Tilt(section, tilt.getAcqOrder(), float(tilt.getTiltAngle()), dose, tilt.getIncomingDose())
        for section, (tilt, dose) in enumerate(zip(mdoc.getTiltsMetadata(), before), start=1)
    ]
    angles = [tilt.angle for tilt in tilts]
    acquisition = TomoAcquisition(
        voltage=float(mdoc.getVoltage()),
        magnification=float(mdoc.getMagnification()),
        sphericalAberration=settings["cs_mm"],
        amplitudeContrast=settings["amplitude_contrast"],
        dosePerFrame=float(np.mean([tilt.dose for tilt in tilts])),
        accumDose=max(tilt.doseBefore + tilt.dose for tilt in tilts),
        angleMin=angles[0],
        angleMax=angles[-1],
        step=round(float(np.median(np.diff(angles))), 2),
        tiltAxisAngle=0.0,  # the series is aligned: its axis is the images' y
    )
    return Simulated(
        name,
        folder,
        list(record["species_kDa"]),
        round(header_voxel_size(path + ".mrc"), 4),
        float(mdoc.getSamplingRate()),
        acquisition,
        tilts,
        settings["ctf_corrected"],
        crowding["occupied"],
        crowding["concentration_g_per_L"],
    )


def new_tomogram(made: Simulated, ending: str = ".mrc") -> Tomogram:
    """The tomogram, or with ``_noisefree.mrc`` what it would be without noise."""
    return _described(Tomogram(), made, ending)


def new_labels(made: Simulated) -> TomoMask:
    """Which species each voxel belongs to; 0 is none."""
    mask = _described(TomoMask(), made, "_labels.mrc")
    mask.setVolName(made.path(".mrc"))
    return mask


def _described(tomogram: Tomogram, made: Simulated, ending: str) -> Any:
    tomogram.setTsId(made.name)
    tomogram.setFileName(made.path(ending))
    tomogram.setSamplingRate(made.voxelSize)
    tomogram.setAcquisition(made.acquisition.clone())
    tomogram.setCtfCorrected(made.ctfCorrected)
    origin = Transform()
    origin.setShifts(*(-side / 2 * made.voxelSize for side in tomogram.getDim()))  # the middle, as Scipion's imports
    tomogram.setOrigin(origin)
    return tomogram


def add_tilt_series(made: Simulated, output: SetOfTiltSeries) -> None:
    """Append the tilt series to a set. It is aligned, so each image has the identity as its transformation."""
    series = TiltSeries(tsId=made.name)
    series.setSamplingRate(made.pixelSize)
    series.setAcquisition(made.acquisition.clone())
    series.setAnglesCount(len(made.tilts))
    series.setAlignment2D()
    output.append(series)  # before its images, which go into a table of the set
    for tilt in made.tilts:
        image = TiltImage(
            location=(tilt.section, made.path(".st")), tiltAngle=tilt.angle, acquisitionOrder=tilt.order, tsId=made.name
        )
        image.setSamplingRate(made.pixelSize)
        acquisition = made.acquisition.clone()
        acquisition.setDoseInitial(tilt.doseBefore)
        acquisition.setDosePerFrame(tilt.dose)
        acquisition.setAccumDose(tilt.doseBefore + tilt.dose)
        image.setAcquisition(acquisition)
        image.setTransform(Transform(np.eye(3)))
        series.append(image)
    width, height, _ = series.getFirstItem().getDim()
    origin = Transform()
    origin.setShifts(-width / 2 * made.pixelSize, -height / 2 * made.pixelSize, 0)
    series.setOrigin(origin)
    output.update(series)
