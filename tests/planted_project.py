"""One tilt series, planted in the files of every program in its own form: signs, units and orders are those of the program.

Seven tilts of -30 to 30 degrees, dose-symmetric from 0, 3 e/A^2 each; underfocus 3.0 um at 0 and 0.1 more for every further
tilt of the stack; 0.05 um of astigmatism along 20 degrees in the image, tilt axis at 85 degrees.
"""

from __future__ import annotations

from pathlib import Path

TILTS = (-30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0)
ORDER = (5, 3, 1, 0, 2, 4, 6)  # when each was taken
DOSE, AXIS, ASTIGMATISM, DIRECTION = 3.0, 85.0, 0.05, 20.0
BEFORE = tuple(DOSE * k for k in ORDER)
DEFOCUS = tuple(2.7 + 0.1 * i for i in range(7))
MONTHS = ("Jan", "Feb")


def relion(folder: Path, names: tuple[str, ...] = ("TS_01",), hand: float = -1.0, **tilt_columns: str) -> Path:
    """A RELION 5 project's folder: Tomograms/job010/tomograms.star and its tilt series.  tilt_columns : column -> a value for
    all tilts, instead of the planted ones."""
    job = folder / "Tomograms" / "job010"
    (job / "tilt_series").mkdir(parents=True)
    columns = (
        "rlnTomoName", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnMicrographOriginalPixelSize",
        "rlnTomoHand", "rlnOpticsGroupName", "rlnTomoTiltSeriesPixelSize", "rlnTomoTiltSeriesStarFile",
        "rlnTomoTomogramBinning", "rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ", "rlnTomoReconstructedTomogram",
    )  # fmt: skip
    lines = ["", "# version 50001", "", "data_global", "", "loop_"]
    lines += [f"_{column} #{i + 1}" for i, column in enumerate(columns)]
    for name in names:
        lines.append(
            f"{name} 300.000000 2.700000 0.070000 0.675 {hand} optics1 1.350000 "
            f"Tomograms/job010/tilt_series/{name}.star 7.4 4000 4000 2000 Tomograms/job010/tomograms/rec_{name}.mrc"
        )
        (job / "tilt_series" / f"{name}.star").write_text(_relion_series(name, tilt_columns))
    (job / "tomograms.star").write_text("\n".join(lines) + "\n\n")
    return job / "tomograms.star"


def _relion_series(name: str, other: dict[str, str]) -> str:
    columns = (
        "rlnMicrographName", "rlnTomoNominalStageTiltAngle", "rlnTomoNominalTiltAxisAngle", "rlnMicrographPreExposure",
        "rlnTomoXTilt", "rlnTomoYTilt", "rlnTomoZRot", "rlnTomoXShiftAngst", "rlnTomoYShiftAngst", "rlnDefocusU",
        "rlnDefocusV", "rlnDefocusAngle", "rlnCtfScalefactor",
    )  # fmt: skip
    lines = ["", "# version 50001", "", f"data_{name}", "", "loop_"]
    lines += [f"_{column} #{i + 1}" for i, column in enumerate(columns)]
    for i in sorted(range(7), key=lambda i: ORDER[i]):  # RELION keeps the order of the exposures
        values = dict(zip(columns, (
            f"MotionCorr/job002/{name}_{i}.mrc", TILTS[i] + 0.5, AXIS + 1, BEFORE[i], 0.0, TILTS[i], AXIS, 1.5, -2.5,
            1e4 * (DEFOCUS[i] + ASTIGMATISM), 1e4 * (DEFOCUS[i] - ASTIGMATISM), DIRECTION, 1.0,
        ), strict=True))  # fmt: skip
        lines.append(" ".join(str(other.get(column, value)) for column, value in values.items()))
    return "\n".join(lines) + "\n\n"


def tomostar(folder: Path, name: str = "TS_01") -> Path:
    """Warp's angle is minus ours; its dose that before the tilt."""
    columns = ("MovieName", "AngleTilt", "AxisAngle", "Dose", "AverageIntensity", "MaskedFraction")
    lines = ["", "data_", "", "loop_", *(f"_wrp{column} #{i + 1}" for i, column in enumerate(columns))]
    for i in reversed(range(7)):
        lines.append(f"  ../frameseries/{name}_{i}.tif  {-TILTS[i]:.2f}  {AXIS:.3f}  {BEFORE[i]}  3.854  0.000")
    path = folder / f"{name}.tomostar"
    path.write_text("\n".join(lines) + "\n")
    return path


def warp_xml(folder: Path, name: str = "TS_01", inverted: bool = False, level: float = 0.0, used: int = 7) -> Path:
    order = list(reversed(range(7)))

    def per_line(element: str, values: list[str]) -> str:
        return f"  <{element}>" + "\n".join(values) + f"</{element}>"

    def grid(element: str, values: list[float]) -> str:
        nodes = "".join(f'<Node X="0" Y="0" Z="{z}" Value="{v:.5g}" />' for z, v in enumerate(values))
        return f'  <{element} Width="1" Height="1" Depth="{len(values)}">{nodes}</{element}>'

    parameters = {"PixelSize": 2.7, "Cs": 2.7, "Voltage": 300, "Defocus": 3.0, "DefocusDelta": 0.1, "DefocusAngle": 20,
                  "Amplitude": 0.07, "PhaseShift": 0}  # fmt: skip
    text = [
        '<?xml version="1.0" encoding="utf-16"?>'.replace("utf-16", "utf-8"),
        f'<TiltSeries DataDirectory="" AreAnglesInverted="{inverted}" LevelAngleX="0" LevelAngleY="{level}" PlaneNormal="0, 0, 0">',
        per_line("Angles", [f"{-TILTS[i] - level:.2f}" for i in order]),
        per_line("Dose", [str(BEFORE[i]) for i in order]),
        per_line("UseTilt", [str(k < used) for k in range(7)]),
        per_line("AxisAngle", [str(AXIS)] * 7),
        "  <CTF>" + "".join(f'<Param Name="{k}" Value="{v}" />' for k, v in parameters.items()) + "</CTF>",
        grid("GridCTF", [DEFOCUS[i] for i in order]),
        grid("GridCTFDefocusDelta", [2 * ASTIGMATISM] * 7),
        grid("GridCTFDefocusAngle", [DIRECTION] * 7),
        grid("GridCTFPhase", [0.0]),
        "</TiltSeries>",
    ]
    path = folder / f"{name}.xml"
    path.write_text("\n".join(text) + "\n")
    return path


def tlt(folder: Path, name: str = "TS_01", ending: str = ".tlt") -> Path:
    path = folder / (name + ending)
    path.write_text("".join(f"{tilt:7.2f}\n" for tilt in TILTS))
    return path


def xf(folder: Path, name: str = "TS_01") -> Path:
    """The image is turned by minus the direction of the axis: cos 85 and sin -85 degrees."""
    path = folder / f"{name}.xf"
    path.write_text("   0.0871557   0.9961947  -0.9961947   0.0871557       2.395      -3.871\n" * 7)
    return path


def defocus(folder: Path, name: str = "TS_01", version: int = 3, phase: bool = False) -> Path:
    """In nm; version 0 is the legacy form, with views from 0."""
    lines = []
    if version == 3:
        lines.append(f"{1 + 4 * phase}\t0\t0.0\t0.0\t0.0\t3")
    for i, tilt in enumerate(TILTS):
        view = i if version == 0 else i + 1
        line = f"{view}\t{view}\t{tilt:.2f}\t{tilt:.2f}\t"
        if version == 3:
            line += f"{1000 * (DEFOCUS[i] + ASTIGMATISM):.1f}\t{1000 * (DEFOCUS[i] - ASTIGMATISM):.1f}\t{DIRECTION:.2f}"
            line += "\t90.00" if phase else ""
        else:
            line += f"{1000 * DEFOCUS[i]:.1f}" + ("\t2" if version == 2 and i == 0 else "")
        lines.append(line)
    path = folder / f"{name}.defocus"
    path.write_text("\n".join(lines) + "\n")
    return path


def mdoc(
    folder: Path,
    name: str = "TS_01",
    ending: str = ".mrc.mdoc",
    prior: bool = True,
    dates: bool = True,
    by_time: bool = True,
) -> Path:
    lines = ["PixelSpacing = 1.35", "Voltage = 300", f"ImageFile = {name}.mrc", "ImageSize = 4096 4096", "DataMode = 1", "",
             "[T = SerialEM: Digitized on Titan Krios                       30-Nov-15  15:14:20    ]", "",
             f"[T =     Tilt axis angle = {AXIS}, binning = 1  spot = 8  camera = 2]"]  # fmt: skip
    for z, i in enumerate(sorted(range(7), key=lambda i: ORDER[i]) if by_time else range(7)):
        lines += ["", f"[ZValue = {z}]", f"TiltAngle = {TILTS[i] + 0.0123:g}", "StagePosition = 20.79 155.28",
                  f"ExposureDose = {DOSE}", "PixelSpacing = 1.35", "SpotSize = 8", "Defocus = 2.68",
                  "RotationAngle = 175", "TargetDefocus = -4", "SubFramePath = D:\\DATA\\a b=c.mrc"]  # fmt: skip
        lines += [f"PriorRecordDose = {BEFORE[i]}"] if prior else []
        lines += [f"DateTime = 30-Nov-15  15:{20 + ORDER[i]}:38"] if dates else []
    path = folder / (name + ending)
    path.write_text("\r\n".join(lines) + "\r\n")
    return path


def aln(folder: Path, name: str = "TS_01", dark: int = 0, patches: bool = True) -> Path:
    """The first `dark` tilts were left out."""
    lines = ["# AreTomo Alignment / Priims bprmMn", "# RawSize = 4096 4096 7", f"# NumPatches = {int(patches)}"]
    lines += [f"# DarkFrame =  {i:4d} {i + 1:4d} {TILTS[i]:8.2f}" for i in range(dark)]
    lines += ["# AlphaOffset =     0.00", "# BetaOffset =     0.00", "# Thickness = 1200"]
    lines += ["# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT"]
    row = "{:5d}  {:9.4f}  {:9.5f}  {:9.3f}  {:9.3f}  {:7.2f}  {:7.2f}  {:7.2f}  {:7.2f}  {:8.2f}"
    lines += [row.format(i + 1, AXIS, 1, 9.22, -3.5, 1, 1, 1, 0, TILTS[i]) for i in range(dark, 7)]
    if patches:
        lines += [
            "# Local Alignment",
            *(f"{i:4d} {0:3d} {1.0:8.2f}  {2.0:8.2f}  {0.5:8.2f}  {0.5:8.2f}  {1.0:4.1f}" for i in range(7)),
        ]
    path = folder / f"{name}.aln"
    path.write_text("\n".join(lines) + "\n")
    return path


def ctf_text(
    folder: Path, name: str = "TS_01", ending: str = "_CTF.txt", program: str = "aretomo", first: int = 0
) -> Path:
    """In A, phase in radians; CTFFIND 5 has three columns more, AreTomo no line of the microscope."""
    columns = (
        "# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of astigmatism; "
        "#5 - additional phase shift [radians]; #6 - cross correlation; #7 - spacing (in Angstroms) up to which CTF rings were fit successfully"
    )
    lines = [columns.replace("#1 - m", "#1 m") if program == "aretomo" else columns]
    if program != "aretomo":
        lines = ["# Output from CTFFind version 5.0, run on 2024-03-01 15:12:45",
                 "# Input file: TS_01.st ; Number of micrographs: 7",
                 "# Pixel size: 1.350 Angstroms ; acceleration voltage: 300.0 keV ; spherical aberration: 2.70 mm ; amplitude contrast: 0.07",
                 *lines]  # fmt: skip
    for n, i in enumerate(range(first, 7)):
        more = "  85.0 10.0 1200.0" if program == "ctffind5" else ""
        lines.append(
            f"{n + 1:.6f}  {1e4 * (DEFOCUS[i] + ASTIGMATISM):.4f}  {1e4 * (DEFOCUS[i] - ASTIGMATISM):.4f}  {DIRECTION:.4f}  "
            f"0.000000  0.1311  6.8746{more}"
        )
    path = folder / (name + ending)
    path.write_text("\n".join(lines) + "\n")
    return path
