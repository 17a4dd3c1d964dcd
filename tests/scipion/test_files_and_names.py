"""The plugin's small parts that need no project: STAR tables, names of targets, installation, house rules."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from pwem import Domain
from pwem.objects import AtomStruct, Volume
from tomo.objects import Tomogram

import tomotwin_scipion
from tomotwin_scipion import Plugin
from tomotwin_scipion.convert import Pick, link_tomogram, new_coordinate, read_picks, target_name
from tomotwin_scipion.targets import prepare_targets, read_targets, write_targets
from tomotwin_view.star import read_pairs, read_table, write_tables

PACKAGE = Path(tomotwin_scipion.__file__).parent
PROTOCOLS = {
    "ProtTwinClusterPicking",
    "ProtTwinEvaluatePicks",
    "ProtTwinExtractSubtomograms",
    "ProtTwinOrientPicks",
    "ProtTwinCreateMask",
    "ProtTwinEmbedTomograms",
    "ProtTwinReferencePicking",
    "ProtTwinSimulateTomograms",
    "ProtTwinTrainModel",
}

Domain.getPlugins()  # defines the plugins' variables, as Scipion does when it starts


# ------------------------------ STAR ------------------------------
def test_a_table_after_another_block_is_read_and_its_values_come_back(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_text(
        '# made by hand\ndata_tomotwin\n\n_tomotwinVersion  1.0\n_tomotwinSettings  \'{"a": "x y"}\'\n\n'
        "data_particles\n\nloop_\n_rlnTomoName #1\n_rlnCoordinateX #2\nts_1  1.25\n'ts 2'  -3\n\n\ndata_more\n_x 1\n"
    )
    assert read_table(str(path), "particles") == [
        {"rlnTomoName": "ts_1", "rlnCoordinateX": "1.25"},
        {"rlnTomoName": "ts 2", "rlnCoordinateX": "-3"},
    ]
    assert read_pairs(str(path), "tomotwin") == {"tomotwinVersion": "1.0", "tomotwinSettings": '{"a": "x y"}'}


def test_what_is_written_is_read_back_to_a_hundred_thousandth(tmp_path: Path) -> None:
    path = str(tmp_path / "b.star")
    write_tables(path, {"other": (["y"], [[1]]), "particles": (["name", "x"], [["a b", 1.123456], ["c", 2]])})
    rows = read_table(path, "particles")
    assert [row["name"] for row in rows] == ["a b", "c"]
    assert [float(row["x"]) for row in rows] == [1.12346, 2.0]
    assert list(tmp_path.iterdir()) == [Path(path)]


def test_an_empty_table_has_no_rows_and_a_missing_one_is_said(tmp_path: Path) -> None:
    path = str(tmp_path / "c.star")
    write_tables(path, {"particles": (["x"], [])})
    assert read_table(path, "particles") == []
    with pytest.raises(ValueError, match="has no block data_optics"):
        read_table(path, "optics")


def test_a_row_with_a_value_too_few_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "d.star"
    path.write_text("data_particles\nloop_\n_x\n_y\n1 2\n3\n")
    with pytest.raises(ValueError, match="line 6: 1 values for 2 columns"):
        read_table(str(path), "particles")


def test_picks_keep_label_score_and_diameter(tmp_path: Path) -> None:
    path = str(tmp_path / "p.star")
    labels = ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]
    labels += ["tomotwinLabel", "tomotwinScore", "tomotwinDiameterAngst"]
    write_tables(path, {"particles": (labels, [["t", 1.5, 2.0, 3.0, "ribosome", 0.875, 250.0]])})
    assert read_picks(path) == [Pick(1.5, 2.0, 3.0, "ribosome", 0.875, 250.0)]


# ------------------------------ tomograms, references ------------------------------
def test_a_tomogram_is_linked_under_its_tsid(tmp_path: Path) -> None:
    source = tmp_path / "some name.rec"
    with mrcfile.new(source) as file:
        file.set_data(np.zeros((2, 3, 4), np.float32))
    tomogram = Tomogram()
    tomogram.setFileName(str(source) + ":mrc")
    tomogram.setTsId("TS_01")
    link = link_tomogram(tomogram, str(tmp_path))
    assert Path(link).name == "TS_01.mrc"
    assert Path(link).resolve() == source.resolve()


@pytest.mark.parametrize("origin", [(0, 0, 0), (-120.0, -88.0, -40.0), (16.0, 0.0, 8.0)])
def test_a_position_does_not_depend_on_the_origin_of_the_tomogram(tmp_path: Path, origin: tuple) -> None:
    from pwem.objects import Transform
    from tomo.constants import BOTTOM_LEFT_CORNER

    path = tmp_path / "t.mrc"
    with mrcfile.new(path) as file:
        file.set_data(np.zeros((10, 22, 30), np.float32))
    tomogram = Tomogram()
    tomogram.setFileName(str(path))
    tomogram.setSamplingRate(8.0)
    tomogram.setTsId("t")
    shifts = Transform()
    shifts.setShifts(*origin)
    tomogram.setOrigin(shifts)
    coordinate = new_coordinate(tomogram, Pick(3.25, 21.0, 7.5, "a", 0.9, 100.0), group=2)
    assert coordinate.getPosition(BOTTOM_LEFT_CORNER) == pytest.approx((3.25, 21.0, 7.5))
    assert (coordinate.getGroupId(), coordinate.getTomoId(), coordinate.getScore()) == (2, "t", 0.9)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/import_1abc.mrc:mrc", "1abc"),
        ("emd_1234.map.gz", "emd_1234"),
        ("my map (2).mrc", "my_map_2"),
        ("Ünï=x.mrc", "n_x"),
    ],
)
def test_names_of_targets_are_plain_words(path: str, name: str) -> None:
    assert target_name(path, []) == name


def test_equal_file_names_give_different_targets_in_the_users_order(tmp_path: Path) -> None:
    references = []
    for folder, value in (("a", 1), ("b", 2)):
        (tmp_path / folder).mkdir()
        with mrcfile.new(tmp_path / folder / "map.mrc") as file:
            file.set_data(np.full((4, 4, 4), value, np.float32))
        volume = Volume()
        volume.setFileName(str(tmp_path / folder / "map.mrc"))
        volume.setSamplingRate(7.0)
        references.append(volume)
    references.append(AtomStruct(filename="/somewhere/1abc.cif"))
    targets = prepare_targets(references, str(tmp_path))
    assert [(target.group, target.name) for target in targets] == [(1, "map"), (2, "map_2"), (3, "1abc")]
    assert targets[2].source == "/somewhere/1abc.cif"
    for target, value in zip(targets, (1, 2), strict=False):
        with mrcfile.open(target.source) as file:
            assert file.data[0, 0, 0] == value
            assert file.voxel_size.x == 7.0
    with mrcfile.open(tmp_path / "a" / "map.mrc") as file:
        assert file.voxel_size.x == 0.0  # the user's own file stays as it was
    write_targets(targets, str(tmp_path / "targets.json"))
    assert read_targets(str(tmp_path / "targets.json")) == targets


# ------------------------------ installation ------------------------------
def test_a_missing_engine_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Plugin.validateInstallation() == []
    monkeypatch.setitem(Plugin._vars, "TOMOTWIN_BIN", "/nowhere/tomotwin")
    (sentence,) = Plugin.validateInstallation()
    assert "'/nowhere/tomotwin' was not found" in sentence and "scipion installb tomotwin_engine" in sentence


def test_activation_and_gpus_come_in_front_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Plugin._vars, "TOMOTWIN_BIN", "/opt/my tools/tomotwin")
    monkeypatch.setitem(Plugin._vars, "TOMOTWIN_ENGINE_ACTIVATION", "module load x &&")
    assert Plugin.getProgram("0,1") == "module load x && CUDA_VISIBLE_DEVICES=0,1 '/opt/my tools/tomotwin'"


def test_the_engine_does_not_inherit_pythonpath(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert "PYTHONPATH" not in Plugin.getEnviron()


def test_the_installer_takes_the_engine_of_the_plugins_own_version() -> None:
    import tomotwin_core
    from tomotwin_scipion.constants import ENGINE_VERSION

    assert ENGINE_VERSION == tomotwin_scipion.__version__ == tomotwin_core.__version__


# ------------------------------ house rules ------------------------------
def test_scipion_finds_protocols_and_objects_through_the_entry_point() -> None:
    assert set(Domain.getProtocols()) >= PROTOCOLS
    assert {"TomoTwinModel", "TomogramEmbedding", "SetOfTomogramEmbeddings"} <= set(Domain.getObjects())


def test_the_citation_is_known_to_scipion() -> None:
    protocol = Domain.getProtocols()["ProtTwinReferencePicking"]()
    assert "10.1038/s41592-023-01878-z" in protocol.citations()[1]


def test_protocols_conf_names_only_protocols_that_exist() -> None:
    named = set(re.findall(r'"value": "(\w+)"', (PACKAGE / "protocols.conf").read_text()))
    assert named == PROTOCOLS


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_plugin_keeps_to_python_3_8_and_never_imports_the_engine(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            assert not any(name.split(".")[0] in ("tomotwin_core", "torch", "starfile", "zarr") for name in names)
