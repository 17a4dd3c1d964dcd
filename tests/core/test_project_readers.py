"""Each program's files give the planted series: angles with their sign, units, orders; malformed ones are refused in one
sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import alnfile
import mdocfile
import numpy as np
import planted_project as planted
import pytest
from planted_project import AXIS, BEFORE, DEFOCUS, DOSE, TILTS

from tomotwin_core.errors import UserError
from tomotwin_core.project import TiltSeries, read_project
from tomotwin_core.project.imod import read_defocus, read_tilt_axis
from tomotwin_core.simulation import Acquisition


def only(path: Path) -> TiltSeries:
    (series,) = read_project(path).all()
    return series


def by_tilt(series: TiltSeries, name: str) -> np.ndarray:
    return np.array(series.kept(getattr(series, name)))


def ctf_is_planted(series: TiltSeries) -> None:
    np.testing.assert_allclose(by_tilt(series, "defocus_um"), DEFOCUS, atol=1e-3)
    np.testing.assert_allclose(by_tilt(series, "astigmatism_um"), planted.ASTIGMATISM, atol=1e-3)
    np.testing.assert_allclose(by_tilt(series, "astigmatism_angle_deg"), planted.DIRECTION, atol=1e-3)


def test_relion_5_gives_angles_doses_and_ctf_of_each_tilt(tmp_path: Path) -> None:
    series = only(planted.relion(tmp_path))
    assert series.name == "TS_01" and series.kept(series.tilt_deg) == TILTS, "the refined angles, not the nominal ones"
    assert series.tilt_deg[0] == 0.0, "in the order of the file"
    np.testing.assert_allclose(by_tilt(series, "exposure_before_e_per_A2"), BEFORE)
    np.testing.assert_allclose(by_tilt(series, "tilt_axis_deg"), AXIS)
    ctf_is_planted(series)
    assert (series.voltage_kV, series.cs_mm, series.amplitude_contrast) == (300.0, 2.7, 0.07)
    assert series.pixel_size_A == 1.35


@pytest.mark.parametrize("hand", [-1.0, 1.0])
def test_hand_of_relion_is_that_of_its_own_formula(tmp_path: Path, hand: float) -> None:
    """Tomogram::getCtf adds hand * depth, depth being z of the place after setProjectionMatrix has turned it."""
    series = only(planted.relion(tmp_path, hand=hand))
    angle, x = np.deg2rad(30.0), 1000.0
    turned = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    added = hand * (turned @ [x, 0.0, 0.0])[2]
    assert series.defocus_hand is not None
    assert series.defocus_hand * x * np.sin(angle) == pytest.approx(added)


@pytest.mark.parametrize("inverted", [False, True])
def test_sense_and_hand_of_warp_are_those_of_its_own_formula(tmp_path: Path, inverted: bool) -> None:
    """Matrix3.Euler(0, angle, 0) images x cos - z sin, and what it adds to the underfocus is the turned z, x sin + z cos; with
    AreAnglesInverted that of the opposite angle."""
    series = only(planted.warp_xml(tmp_path, inverted=inverted))
    warp, ours = np.deg2rad(-series.tilt_deg[0]), np.deg2rad(series.tilt_deg[0])
    x, z = 300.0, 100.0
    assert x * np.cos(warp) - z * np.sin(warp) == pytest.approx(x * np.cos(ours) + z * np.sin(ours))
    assert series.defocus_hand is not None
    assert series.defocus_hand * x * np.sin(ours) == pytest.approx(x * np.sin(-warp if inverted else warp))


def test_warp_gives_the_series_with_its_levelling_and_excluded_tilts(tmp_path: Path) -> None:
    series = only(planted.warp_xml(tmp_path, level=4.0, used=5))
    assert series.kept(series.tilt_deg) == TILTS[2:], "the last two of the file are the two of the lowest angles"
    np.testing.assert_allclose(by_tilt(series, "exposure_before_e_per_A2"), BEFORE[2:])
    np.testing.assert_allclose(by_tilt(series, "defocus_um"), DEFOCUS[2:], atol=1e-4)
    assert series.excluded.count(True) == 2 and (series.voltage_kV, series.cs_mm) == (300.0, 2.7)


def test_astigmatism_of_warp_is_half_of_its_delta(tmp_path: Path) -> None:
    ctf_is_planted(only(planted.warp_xml(tmp_path)))


def test_a_ctf_that_warp_has_not_fitted_is_not_taken(tmp_path: Path) -> None:
    path = planted.warp_xml(tmp_path)
    path.write_text(
        re.sub(r"<GridCTF .*</GridCTF>", '<GridCTF><Node X="0" Y="0" Z="0" Value="1" /></GridCTF>', path.read_text())
    )
    assert only(path).defocus_um == ()


def test_tomostar_gives_angles_axis_and_doses(tmp_path: Path) -> None:
    series = only(planted.tomostar(tmp_path))
    assert series.kept(series.tilt_deg) == TILTS
    np.testing.assert_allclose(by_tilt(series, "exposure_before_e_per_A2"), BEFORE)
    assert set(series.tilt_axis_deg) == {AXIS} and series.defocus_um == ()


def test_imod_gives_angles_axis_and_defocus_in_um(tmp_path: Path) -> None:
    planted.xf(tmp_path)
    planted.defocus(tmp_path)
    series = only(planted.tlt(tmp_path))
    assert series.tilt_deg == TILTS
    np.testing.assert_allclose(series.tilt_axis_deg, AXIS, atol=1e-4)
    ctf_is_planted(series)


@pytest.mark.parametrize("version", [0, 2, 3])
def test_defocus_files_of_all_versions_say_the_same(tmp_path: Path, version: int) -> None:
    path = planted.defocus(tmp_path, version=version)
    np.testing.assert_allclose(read_defocus(path).of_views(7, path).defocus_um, DEFOCUS)
    assert only(path).tilt_deg == TILTS, "angles of single views serve where there are no others"


def test_legacy_lines_of_several_views_are_interpolated(tmp_path: Path) -> None:
    path = tmp_path / "TS.defocus"
    path.write_text("1 3 -30.0 -10.0 3000.0 2\n5 7 10.0 30.0 4000.0\n")
    np.testing.assert_allclose(read_defocus(path).of_views(7, path).defocus_um, [3, 3, 3.25, 3.5, 3.75, 4, 4])


def test_flags_of_version_3_are_heeded(tmp_path: Path) -> None:
    path = tmp_path / "TS.defocus"
    # 31: astigmatism, its angle in radians, phase shift, in radians too, angles inverted; the greater underfocus second.
    path.write_text(
        "31 0 0. 0. 0. 3\n1 1 30.0 30.0 2900.0 3100.0 1.0 1.5707963\n2 2 -30.0 -30.0 2900.0 3100.0 1.0 1.5707963\n"
    )
    found = read_defocus(path)
    assert found.tilt_deg == (-30.0, 30.0)
    ctf = found.of_views(2, path)
    assert ctf.defocus_um[0] == pytest.approx(3.0) and ctf.astigmatism_um[0] == pytest.approx(0.1)
    assert ctf.astigmatism_angle_deg[0] == pytest.approx(np.degrees(1.0) - 90)
    assert ctf.phase_shift_deg[0] == pytest.approx(90.0, abs=1e-4)


@pytest.mark.parametrize(("prior", "dates"), [(True, True), (False, True), (True, False), (False, False)])
def test_mdoc_gives_doses_in_the_order_of_exposure(tmp_path: Path, prior: bool, dates: bool) -> None:
    series = only(planted.mdoc(tmp_path, prior=prior, dates=dates))
    np.testing.assert_allclose(series.kept(series.tilt_deg), np.array(TILTS) + 0.0123)
    np.testing.assert_allclose(by_tilt(series, "exposure_before_e_per_A2"), BEFORE)
    assert set(series.dose_e_per_A2) == {DOSE} and set(series.tilt_axis_deg) == {AXIS}, (
        "the title's axis, not the camera's"
    )
    assert series.nominal_defocus and set(series.defocus_um) == {4.0}
    assert (series.voltage_kV, series.pixel_size_A) == (300.0, 1.35)


def test_mdoc_sorted_by_angle_without_dates_says_no_order(tmp_path: Path) -> None:
    series = only(planted.mdoc(tmp_path, prior=False, dates=False, by_time=False))
    assert series.exposure_before_e_per_A2 == () and "in an order that is not said" in series.described()
    assert series.acquisition(Acquisition()).dose_e_per_A2 == pytest.approx(21.0)


def test_mdoc_read_as_mdocfile_reads_it(tmp_path: Path) -> None:
    table = mdocfile.read(planted.mdoc(tmp_path))
    series = only(tmp_path / "TS_01.mrc.mdoc")
    np.testing.assert_allclose(table["TiltAngle"].astype(float), series.tilt_deg)
    np.testing.assert_allclose(table["PriorRecordDose"].astype(float), series.exposure_before_e_per_A2)


def test_aretomo_gives_angles_axis_and_ctf(tmp_path: Path) -> None:
    planted.ctf_text(tmp_path)
    series = only(planted.aln(tmp_path))
    assert series.tilt_deg == TILTS and set(series.tilt_axis_deg) == {AXIS}
    ctf_is_planted(series)
    np.testing.assert_allclose(alnfile.read(tmp_path / "TS_01.aln")["tilt"], series.tilt_deg)


def test_images_that_aretomo_left_out_are_left_out_of_the_mdoc(tmp_path: Path) -> None:
    planted.mdoc(tmp_path)
    planted.ctf_text(tmp_path, first=2)
    series = only(planted.aln(tmp_path, dark=2))
    assert series.tilt_deg == TILTS[2:]
    np.testing.assert_allclose(series.exposure_before_e_per_A2, BEFORE[2:])
    np.testing.assert_allclose(series.defocus_um, DEFOCUS[2:])


@pytest.mark.parametrize("program", ["ctffind4", "ctffind5"])
def test_ctffind_gives_um_and_the_microscope(tmp_path: Path, program: str) -> None:
    planted.tlt(tmp_path, ending=".rawtlt")
    series = only(planted.ctf_text(tmp_path, ending="_ctf.txt", program=program))
    ctf_is_planted(series)
    assert (series.voltage_kV, series.cs_mm, series.amplitude_contrast, series.pixel_size_A) == (300.0, 2.7, 0.07, 1.35)


def test_mdoc_in_another_order_goes_to_the_tilts_by_their_angles(tmp_path: Path) -> None:
    planted.mdoc(tmp_path)
    planted.defocus(tmp_path)
    series = only(planted.tlt(tmp_path))
    assert series.tilt_deg == TILTS, "the refined angles"
    np.testing.assert_allclose(series.exposure_before_e_per_A2, BEFORE)
    assert not series.nominal_defocus
    ctf_is_planted(series)


def cut_short(path: Path) -> None:
    path.write_text(path.read_text()[: len(path.read_text()) * 2 // 3])


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("make", "spoil", "said"),
    [
        (planted.relion, replaced("_rlnTomoTiltSeriesStarFile", "_rlnSomething"), "lists no tilt series"),
        (planted.relion, replaced("tilt_series/TS_01.star", "tilt_series/other.star"), "in no folder above"),
        (planted.relion, replaced("300.000000", "nan300"), "no numbers"),
        (planted.relion, replaced("300.000000", "3.0"), "voltage_kV = 3"),
        (planted.relion, replaced("300.000000 2.700000", "300.000000"), "not a STAR file|values"),
        (planted.tomostar, replaced("_wrpAngleTilt", "_wrpAngle"), "no wrpAngleTilt"),
        (planted.tomostar, replaced("30.00", "nan"), "tilt_deg = nan"),
        (planted.tomostar, replaced("3.854", ""), "values"),
        (planted.warp_xml, cut_short, "no complete XML"),
        (planted.warp_xml, replaced("TiltSeries ", "Movie "), "XML"),
        (planted.warp_xml, replaced("<Angles>", "<Angles>nan\n"), "no number"),
        (planted.warp_xml, replaced("<Angles>", "<Angles>40\n"), "UseTilt"),
        (planted.warp_xml, replaced('Z="6"', 'Z="5"'), "nodes of 6 tilts"),
        (planted.warp_xml, replaced("<TiltSeries", "<!DOCTYPE a>\n<TiltSeries"), "entities"),
        (planted.tlt, replaced("-30.00", "thirty"), "no number"),
        (planted.tlt, replaced("-30.00", "nan"), "no number"),
        (planted.tlt, replaced("-30.00", "-30.00 1"), "more than one value"),
        (planted.tlt, replaced("-30.00", "-300.0"), "tilt_deg = -300"),
        (planted.tlt, replaced("-30.00", "-89.00"), "must lie within -85 to 85"),
        (planted.tlt, lambda path: path.write_text(""), "no line"),
        (planted.tlt, lambda path: path.write_text("3.0\n"), "no tilt series"),
        (planted.tlt, lambda path: path.write_text("3.0\n3.0\n"), "no two tilts differ"),
        (planted.tlt, lambda path: path.write_bytes(b"\0\1\2"), "no text"),
        (planted.defocus, replaced("3\n", "4\n"), "version 4"),
        (planted.defocus, replaced("\t20.00", ""), "lacks the angle"),
        (planted.defocus, replaced("2750.0", "nan"), "no number"),
        (planted.defocus, replaced("2750.0", "2.75e9"), "must lie within"),
        (planted.defocus, replaced("1\t1\t", "1.5\t1\t"), "views that cannot be"),
        (planted.mdoc, replaced("TiltAngle = 0.0123", "TiltAngle = "), "no number"),
        (planted.mdoc, replaced("TiltAngle", "Tilt"), "without TiltAngle"),
        (planted.mdoc, replaced("[ZValue = 3]", "[FrameSet = 3]"), "frames or a montage"),
        (planted.mdoc, lambda path: path.write_text("PixelSpacing = 1\n"), "no section"),
        (planted.aln, cut_short, "is the file complete"),
        (planted.aln, replaced("    9.220", ""), "not 10 values"),
        (planted.aln, replaced("# SEC", "# SAC"), "no table"),
        (planted.aln, replaced(f"{AXIS:9.4f}", "      nan"), "no number"),
    ],
)  # fmt: skip
def test_malformed_files_are_refused_in_one_sentence(
    tmp_path: Path, make: Callable[[Path], Path], spoil: Callable[[Path], None], said: str
) -> None:
    path = make(tmp_path)
    spoil(path)
    with pytest.raises(UserError, match=said) as refused:
        only(path)
    assert "\n" not in str(refused.value) and str(tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "TS_01.tlt").write_text("0\n3\n6\n"), "transforms of 7 images, but 3 tilts"),
        (lambda f: [(f / "TS_01.tlt").write_text("0\n3\n6\n"), (f / "TS_01.xf").unlink()], "view 7, but there are 3 tilts"),
        (lambda f: (f / "TS_01.xf").write_text((f / "TS_01.xf").read_text()[:80]), "transforms of 1 images|lacks"),
        (lambda f: (f / "TS_01.xf").write_text("1 0 0 1 0\n" * 7), "lacks one of its six"),
        (lambda f: (f / "TS_01.xf").write_text("0 0 0 1 0 0\n" * 7), "no rotation"),
    ],
)  # fmt: skip
def test_files_that_contradict_each_other_are_refused(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    planted.xf(tmp_path)
    planted.defocus(tmp_path)
    path = planted.tlt(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=said):
        only(path)


def test_other_counts_in_mdoc_and_ctf_are_refused(tmp_path: Path) -> None:
    planted.aln(tmp_path, dark=1)
    planted.ctf_text(tmp_path)
    with pytest.raises(UserError, match="the CTF of 7 images, but 6 tilts"):
        only(tmp_path / "TS_01.aln")
    (tmp_path / "TS_01_CTF.txt").unlink()
    mdoc = planted.mdoc(tmp_path)
    mdoc.write_text(mdoc.read_text().split("[ZValue = 4]")[0])
    with pytest.raises(UserError, match="describes 4 images, but there are 6 tilts"):
        only(tmp_path / "TS_01.aln")


def test_a_ctf_in_other_units_is_refused(tmp_path: Path) -> None:
    planted.tlt(tmp_path)
    path = planted.ctf_text(tmp_path)
    path.write_text(path.read_text().replace("27500.0000", "2.7500"))
    with pytest.raises(UserError, match=r"underfocus of 2\.75, but these are in A"):
        only(path)


def test_views_of_the_transform_are_read_with_the_sense_of_imod(tmp_path: Path) -> None:
    path = tmp_path / "a.xf"
    path.write_text("0.8660254 0.5 -0.5 0.8660254 0 0\n")  # turns clockwise by 30: the axis lay 30 counter-clockwise
    assert read_tilt_axis(path) == pytest.approx((30.0,))
