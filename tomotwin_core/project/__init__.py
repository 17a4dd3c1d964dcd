"""The tomogram's own project: how its tilt series was taken, out of the files that other programs have left.

In: a project's path. Out: `TiltSeries`, one form for all programs, and from it the `Acquisition` that the simulator takes.

    series = read_project(Path("Tomograms/job010/tomograms.star")).of("TS_01")
    acquisition = series.acquisition(Acquisition())

series.py    what is known of a tilt series, units and signs of one kind
finding.py   which files a path stands for, which series a tomogram is of, what lies beside a tomogram
relion.py    RELION 5           warp.py      Warp           loose.py   files side by side under one name:
imod.py      angles, transforms, defocus     serialem.py    mdoc       aretomo.py  alignments    ctffind.py  CTF tables
export.py    picks into a RELION 5 project
text.py      reading text and numbers
"""

from tomotwin_core.project.finding import Project, found_beside, is_project_file, names_of, read_project
from tomotwin_core.project.series import TiltSeries

__all__ = ["Project", "TiltSeries", "found_beside", "is_project_file", "names_of", "read_project"]
