"""A project on the command line: which series a tomogram is of, what is taken from it, and what goes before it."""

from __future__ import annotations

import argparse
from pathlib import Path

import mrcfile
import numpy as np
import planted_project as planted
import pytest
from planted_project import BEFORE, DEFOCUS, TILTS

from tomotwin_core.cli.main import build_parser, main
from tomotwin_core.cli.project import acquisition_and_defocus, acquisition_for
from tomotwin_core.coordinates import Coordinates, write_coordinates
from tomotwin_core.errors import UserError
from tomotwin_core.project import found_beside, names_of, read_project
from tomotwin_core.simulation import Acquisition
from tomotwin_core.tomogram import open_tomogram, write_mrc
from tomotwin_view.star import read_blocks


def tomogram(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1).normal(size=(20, 32, 32)).astype(np.float32)
    write_mrc(path, noise, 10.0)
    return path


def parsed(*words: object) -> argparse.Namespace:
    return build_parser().parse_args([str(w) for w in words])


def orienting(path: Path, *words: object) -> argparse.Namespace:
    return parsed("orient", "p.star", "--tomograms", path, "--reference", "r.mrc", "--out", "o", *words)


def taken(path: Path, *words: object) -> Acquisition:
    return acquisition_for(orienting(path, *words), open_tomogram(path))


def test_names_that_programs_give_tomograms_lead_to_their_series() -> None:
    for name in ("TS_01", "rec_TS_01", "TS_01_rec", "TS_01_10.00Apx", "TS_01_full_rec", "TS_01_bin4_rec", "TS_01_Vol"):
        assert "TS_01" in names_of(name), name
    assert "TS_0" not in names_of("TS_01") and "TS" not in names_of("TS_01")


def test_relion_projects_know_their_tomograms(tmp_path: Path) -> None:
    project = read_project(planted.relion(tmp_path, ("TS_01", "TS_011", "TS_02")))
    assert project.of("rec_TS_02", "rec_TS_02.mrc").name == "TS_02"
    assert project.of("TS_01").name == "TS_01"
    with pytest.raises(UserError, match="has no tilt series of TS_03 among TS_01, TS_011, TS_02"):
        project.of("TS_03")


def test_a_relion_project_that_was_moved_is_read(tmp_path: Path) -> None:
    job = planted.relion(tmp_path / "old").parent
    (tmp_path / "new").mkdir()
    job.rename(tmp_path / "new" / "job")
    assert read_project(tmp_path / "new" / "job" / "tomograms.star").of("TS_01").name == "TS_01"


def test_relion_4_with_all_series_in_one_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tomograms.star"
    path.write_text(
        "data_global\n\nloop_\n_rlnTomoName\n_rlnVoltage\nTS_1 200\n\n"
        "data_TS_1\n\nloop_\n_rlnTomoNominalStageTiltAngle\n_rlnDefocusU\n_rlnDefocusV\n-3 30000 29000\n0 31000 30000\n"
    )
    series = read_project(path).of("TS_1")
    assert series.tilt_deg == (-3.0, 0.0) and series.defocus_um == (2.95, 3.05) and series.voltage_kV == 200


@pytest.mark.parametrize("make", [planted.warp_xml, planted.tomostar, planted.tlt, planted.mdoc, planted.aln])
def test_a_folder_gives_each_tomogram_its_own_series(tmp_path: Path, make: object) -> None:
    assert callable(make)
    for name in ("TS_01", "TS_02"):
        make(tmp_path, name)
    project = read_project(tmp_path)
    assert set(project.readers) == {"TS_01", "TS_02"}
    assert project.of("TS_02_rec").name == "TS_02"


def test_frames_in_a_folder_of_warp_are_no_series(tmp_path: Path) -> None:
    planted.warp_xml(tmp_path, "TS_01")
    (tmp_path / "frame_7.xml").write_text('<?xml version="1.0"?>\n<Movie UnselectManual="null"></Movie>\n')
    assert set(read_project(tmp_path).readers) == {"TS_01"}


def test_what_lies_beside_a_tomogram_is_found_where_there_is_no_doubt(tmp_path: Path) -> None:
    path = tomogram(tmp_path / "TS_01_rec.mrc")
    assert found_beside(path, "TS_01_rec") is None
    planted.tlt(tmp_path)
    planted.mdoc(tmp_path)
    series = found_beside(path, "TS_01_rec")
    assert series is not None and series.tilt_deg == TILTS and sorted(series.exposure_before_e_per_A2) == sorted(BEFORE)
    planted.tlt(tmp_path, "TS_01_rec")
    assert found_beside(path, "TS_01_rec") is None, "two names: doubt"


def test_warp_and_others_side_by_side_are_doubt(tmp_path: Path) -> None:
    path = tomogram(tmp_path / "TS_01.mrc")
    planted.tlt(tmp_path)
    planted.warp_xml(tmp_path)
    assert found_beside(path, "TS_01") is None


def test_what_is_taken_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tomogram(tmp_path / "rec_TS_01.mrc")
    made = taken(path, "--project", planted.relion(tmp_path / "r"))
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and told.startswith("rec_TS_01: acquisition from ")
    assert "7 tilts -30 to 30 degrees, tilt axis at 85 degrees, 21 e/A^2 in all, the tilt of 0 first" in told
    assert "underfocus 3 um (2.7 to 3.3), astigmatism 0.05 um, underfocus grows with x sin(tilt), 300 kV" in told
    assert made.per_tilt is not None and made.per_tilt.tilt_deg == TILTS
    np.testing.assert_allclose(made.defoci_um, DEFOCUS, atol=1e-3)
    np.testing.assert_allclose(made.exposure_before_e_per_A2, np.array(BEFORE) + 1.5)
    np.testing.assert_allclose(made.per_tilt.astigmatism_angle_deg, planted.DIRECTION - planted.AXIS, atol=1e-3)
    assert (made.cs_mm, made.amplitude_contrast, made.dose_e_per_A2) == (2.7, 0.07, 21.0)


def test_options_that_are_given_go_before_the_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tomogram(tmp_path / "TS_01.mrc")
    project = ("--project", planted.relion(tmp_path / "r"))
    voltage = taken(path, *project, "--voltage", 200, "--ctf-corrected")
    assert voltage.voltage_kV == 200 and voltage.ctf_corrected and voltage.per_tilt is not None
    assert "; --voltage as given" in capsys.readouterr().out
    dose = taken(path, *project, "--dose", 42)
    np.testing.assert_allclose(dose.exposure_before_e_per_A2, 2 * (np.array(BEFORE) + 1.5))
    assert set(taken(path, *project, "--defocus", 3, 5).defoci_um) == {4.0}
    grid = taken(path, *project, "--tilt-step", 5)
    assert grid.per_tilt is None and (grid.tilt_min_deg, grid.tilt_max_deg, grid.tilt_step_deg) == (-30, 30, 5)
    # The default's own value counts, too, where it is given.
    assert taken(path, *project, "--tilt-min", -60).tilt_min_deg == -60


def test_without_project_and_files_the_options_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert taken(tomogram(tmp_path / "a.mrc")) == Acquisition(defocus_um=3.75)
    assert capsys.readouterr().out == ""


def test_a_file_beside_the_tomogram_that_cannot_be_read_is_told_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "unreadable.tlt").write_text("a\nb\n")
    assert taken(tomogram(tmp_path / "unreadable.mrc")) == Acquisition(defocus_um=3.75)
    assert "unreadable.tlt: a tilt angle is 'a', which is no number" in capsys.readouterr().err


def test_references_for_a_whole_project_span_its_underfocus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shift in (("TS_1", 0.0), ("TS_2", 1.0), ("TS_3", 3.0)):
        path = planted.defocus(tmp_path, name, version=2)
        lines = [line.split() for line in path.read_text().splitlines()]
        path.write_text("".join(" ".join([*w[:4], str(float(w[4]) + 1000 * shift), *w[5:]]) + "\n" for w in lines))
        planted.tlt(tmp_path, name)
    options = parsed("reference", "a.mrc", "--out", "r", "--project", tmp_path)
    made, defocus_um = acquisition_and_defocus(options)
    assert defocus_um == pytest.approx((3.0, 6.0)) and made.defocus_um == pytest.approx(4.0)
    assert "3 tilt series, angles and exposures of TS_2" in capsys.readouterr().out
    assert acquisition_and_defocus(options, ["TS_3_rec"])[1] == pytest.approx((6.0, 6.0))
    given = parsed("reference", "a.mrc", "--out", "r", "--project", tmp_path, "--defocus", 1, 2)
    assert acquisition_and_defocus(given)[1] == (1.0, 2.0)


def test_an_underfocus_that_was_only_set_is_taken_with_what_it_may_be_off(tmp_path: Path) -> None:
    options = parsed("reference", "a.mrc", "--out", "r", "--project", planted.mdoc(tmp_path))
    assert acquisition_and_defocus(options)[1] == pytest.approx((3.5, 4.5))


def test_exposures_of_another_unit_are_told_and_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = planted.mdoc(tmp_path, prior=False)
    path.write_text(path.read_text().replace("ExposureDose = 3.0", "ExposureDose = 0.03"))
    made = taken(tomogram(tmp_path / "x" / "TS_01.mrc"), "--project", path)
    assert made.dose_e_per_A2 == 120 and "0.21 e/A^2 in all cannot be" in capsys.readouterr().err


def test_info_shows_the_series_of_files_folders_and_tomograms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    star = planted.relion(tmp_path / "r", ("TS_01", "TS_02"))
    planted.tlt(tmp_path / "r")
    path = tomogram(tmp_path / "r" / "TS_01.mrc")
    assert main(["info", str(star), str(tmp_path / "r"), str(path)]) == 0
    told = capsys.readouterr().out
    assert told.count("tilt series of a project") == 2 and "\n  TS_02: 7 tilts -30 to 30 degrees" in told
    assert f"its tilt series, {tmp_path / 'r' / 'TS_01.tlt'}: 7 tilts" in told
    (tmp_path / "r" / "TS_01.tlt").write_text("1\nx\n")
    assert main(["info", str(path)]) == 0 and "its tilt series cannot be read: " in capsys.readouterr().out


@pytest.mark.parametrize("named", ["missing.tlt", "notes.txt", "picture.png", ""])
def test_what_is_no_project_is_refused_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], named: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("nothing of a CTF\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0")
    given = tmp_path / named if named else tmp_path / "empty"
    code = main(["simulate", "--out", str(tmp_path / "o"), "--project", str(given), "--tomograms", "1"])
    told = capsys.readouterr().err
    assert code == 2 and told.count("\n") == 1 and str(given) in told and not (tmp_path / "o").exists()


def test_simulated_series_are_taken_as_the_project_was(tmp_path: Path) -> None:
    path = planted.mdoc(tmp_path)
    command = [
        "simulate",
        "--out",
        str(tmp_path / "o"),
        "--project",
        str(path),
        "--species",
        "1dzl=2",
        "--tomograms",
        "1",
    ]
    assert main([*command, "--shape", "24", "40", "40", "--voxel-size", "12", "--tilt-series"]) == 0
    again = read_project(tmp_path / "o" / "tomo_01.st.mdoc").of("tomo_01")
    np.testing.assert_allclose(again.tilt_deg, np.array(TILTS) + 0.0123, atol=1e-3)
    np.testing.assert_allclose(again.exposure_before_e_per_A2, BEFORE)
    assert set(again.defocus_um) == {4.0} and again.mean_defocus_um == 4.0
    with mrcfile.open(tmp_path / "o" / "tomo_01.st") as stack:
        assert len(stack.data) == 7


def test_a_settings_file_has_no_place_for_a_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["simulate", "--write-settings", str(tmp_path / "s.toml"), "--project", str(planted.tlt(tmp_path))])
    assert code == 2 and "--project" in capsys.readouterr().err


def extracted(tmp_path: Path, *names: str, more: tuple[str, ...] = ()) -> str:
    picks = []
    for name in names:
        table = Coordinates.from_arrays(
            np.array([[16.0, 16.0, 10.0]]),
            10.0,
            shape=(20, 32, 32),
            tomogram=name,
            label=np.array(["a"]),
            diameter_A=[50.0],
        )
        write_coordinates(tmp_path / f"{name}_picks.star", table)
        picks.append(str(tmp_path / f"{name}_picks.star"))
    tomograms = [str(tomogram(tmp_path / f"{name}.mrc")) for name in names]
    code = main(["extract", *picks, "--tomograms", *tomograms, "--out", str(tmp_path / "boxes"), "--box", "16", *more])
    assert code == 0
    return (tmp_path / "boxes" / "particles.star").read_text()


def test_boxes_have_the_wedge_and_the_microscope_of_their_own_series(tmp_path: Path) -> None:
    planted.ctf_text(tmp_path, "TS_1", program="ctffind4")
    planted.tlt(tmp_path, "TS_1")
    text = extracted(tmp_path, "TS_1", "TS_2")
    assert "wedge_16_TS_1.mrc" in text and "wedge_16_TS_2.mrc" in text
    with (
        mrcfile.open(tmp_path / "boxes" / "wedge_16_TS_1.mrc") as own,
        mrcfile.open(tmp_path / "boxes" / "wedge_16_TS_2.mrc") as default,
    ):
        assert own.data.mean() < 0.6 * default.data.mean(), "30 degrees to each side and not 60"


def test_boxes_of_tomograms_taken_alike_share_a_wedge(tmp_path: Path) -> None:
    for name in ("TS_1", "TS_2"):
        planted.tlt(tmp_path, name)
    assert "wedge_16.mrc" in extracted(tmp_path, "TS_1", "TS_2", more=("--tilt-min", "-40"))


def converted(tmp_path: Path, *more: str) -> tuple[int, Path]:
    star = planted.relion(tmp_path / "relion", ("TS_01", "TS_02"))
    for number, name in enumerate(("rec_TS_01", "TS_02")):
        xyz = np.array([[10.0 + number, 12.0, 5.0], [20.0, 3.0, 15.0]])
        table = Coordinates.from_arrays(
            xyz, 10.0, shape=(20, 32, 40), tomogram=name, label="a", diameter_A=[50.0, 50.0]
        )
        write_coordinates(tmp_path / f"{name}.star", table)
    picks = [str(tmp_path / f"{name}.star") for name in ("rec_TS_01", "TS_02")]
    out = tmp_path / "relion" / "Picks" / "p.star"
    return main(["convert", *picks, "--out", str(out), "--format", "relion5", "--project", str(star), *more]), out


def test_picks_come_into_a_relion_5_project_at_their_places(tmp_path: Path) -> None:
    """By RELION's own formula, with the sizes and the pixel that its tomograms.star says: (centred A) / pixel + size / 2."""
    code, out = converted(tmp_path)
    assert code == 0
    blocks = read_blocks(str(out))
    particles = [dict(zip(blocks["particles"].labels, row, strict=True)) for row in blocks["particles"].rows]
    assert [p["rlnTomoName"] for p in particles] == ["TS_01", "TS_01", "TS_02", "TS_02"]
    (optics,) = blocks["optics"].rows
    pixel_A = float(dict(zip(blocks["optics"].labels, optics, strict=True))["rlnTomoTiltSeriesPixelSize"])
    assert pixel_A == 1.35
    unbinned = np.array([40, 32, 20]) * 10.0 / pixel_A  # the tomogram in pixels of the tilt series
    for particle, voxel in zip(particles, ((10, 12, 5), (20, 3, 15), (11, 12, 5), (20, 3, 15)), strict=True):
        centred = np.array([float(particle[f"rlnCenteredCoordinate{axis}Angst"]) for axis in "XYZ"])
        place = centred / pixel_A + unbinned / 2
        np.testing.assert_allclose(place, np.array(voxel) * 10.0 / pixel_A, atol=1e-3)


def test_an_optimisation_set_names_both_files_as_relion_finds_them(tmp_path: Path) -> None:
    _, out = converted(tmp_path)
    (block,) = read_blocks(str(out.with_name("p_optimisation_set.star"))).values()
    named = dict(zip(block.labels, block.rows[0], strict=True))
    assert not block.is_loop and named == {
        "rlnTomoParticlesFile": "Picks/p.star",
        "rlnTomoTomogramsFile": "Tomograms/job010/tomograms.star",
    }


def test_picks_of_a_tomogram_that_the_project_lacks_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Coordinates.from_arrays(np.ones((1, 3)), 10.0, shape=(20, 32, 40), tomogram="other")
    write_coordinates(tmp_path / "o.star", table)
    star = planted.relion(tmp_path / "relion")
    for format, said in (("relion5", "no tilt series of other"), ("relion4", "goes with --format relion5")):
        words = ["convert", str(tmp_path / "o.star"), "--out", str(tmp_path / "x.star"), "--format", format]
        assert main([*words, "--project", str(star)]) == 2
        assert said in capsys.readouterr().err and not (tmp_path / "x.star").exists()
