"""The experiment as a file: every setting can be given, comes back, and is told when it cannot be."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from tomotwin_core.errors import UserError
from tomotwin_core.simulation import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.dataset import load_molecules
from tomotwin_core.simulation.delivery import Delivery
from tomotwin_core.simulation.settings import DataSet, Experiment, read_experiment, write_experiment
from tomotwin_core.toml_settings import explanations

# A value other than the default for every setting that has no number as its default or whose number is limited.
OTHER: dict[str, Any] = {
    "shape": (32, 48, 64),
    "voxel_size_A": 12.0,
    "thickness_A": 250.0,
    "occupied": 0.2,
    "carbon_A": 150.0,
    "membrane_proteins": "free",
    "membrane_protein_side": "inside",
    "missing_tilts_deg": (-59.0, -2.0),
    "tilt_step_deg": 3.0,
    "scheme": "continuous",
    "detector": "ideal",
    "filter": "hamming",
    "amplitude_contrast": 0.1,
    "dqe": 0.5,
    "voltage_kV": 200.0,
    "bits": 8,
    "binned_to_A": 20.0,
    "delivered_at_A": 15.0,
    "contrast": "bright",
    "prefix": "cell",
}


def other(value: Any, name: str) -> Any:
    if name in OTHER:
        return OTHER[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return tuple(v + 1 for v in value)
    assert isinstance(value, int | float), f"give {name} another value in OTHER"
    return value + 1


def all_other(owner: type, **given: Any) -> Any:
    defaults = {"shape": None, "voxel_size_A": None, "thickness_A": None} if owner is SampleSettings else {}
    names = {f.name: defaults.get(f.name, f.default) for f in fields(owner) if f.name not in given}
    return owner(**{name: other(value, name) for name, value in names.items()}, **given)


def test_every_setting_is_written_with_its_explanation_and_read_back(tmp_path: Path) -> None:
    experiment = Experiment(
        {"1dzl": 7, "pdb:4v6x": 3},
        all_other(SampleSettings, copies=40),
        all_other(Acquisition, defocus_um=3.5, per_tilt=None),
        (1.5, 7.0),
        all_other(Delivery),
        all_other(DataSet),
    )
    write_experiment(tmp_path / "e.toml", experiment)
    assert read_experiment(tmp_path / "e.toml") == experiment
    text = (tmp_path / "e.toml").read_text()
    for owner in (SampleSettings, Acquisition, Delivery, DataSet):
        for setting in fields(owner):
            if setting.name not in ("copies", "per_tilt"):
                assert text.count(f"\n{setting.name} = ") == 1, setting.name
                assert len(explanations(owner)[setting.name]) > 2, f"{setting.name} is explained"


def test_the_default_file_is_the_default_experiment(tmp_path: Path) -> None:
    default = read_experiment(None)
    write_experiment(tmp_path / "default.toml", default)
    (tmp_path / "empty.toml").write_text("")
    assert read_experiment(tmp_path / "default.toml") == default == read_experiment(tmp_path / "empty.toml")
    assert asdict(default.acquisition) == asdict(Acquisition()) and default.sample.thickness_A == 0.8 * 110 * 8.0


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(
        "[species]\n1dzl = 5\n[sample]\nshape = [50, 64, 64]\n[tilts]\ntilt_step_deg = 3\n"
    )
    options = {"tilt_step_deg": ("--tilt-step", 4.0), "copies": ("--copies", 9), "draw": ("--random", True)}
    read = read_experiment(tmp_path / "e.toml", options, ["microscope.dqe=0.5", "tilts.scheme=bidirectional"])
    assert read.acquisition == Acquisition(tilt_step_deg=4.0, dqe=0.5, scheme="bidirectional")
    assert dict(read.species) == {"1dzl": 9} and read.dataset.draw
    assert read.sample.shape == (50, 64, 64) and read.sample.thickness_A == 0.8 * 50 * 8.0


def test_files_are_sought_beside_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atom = "ATOM      1  CA  ALA A   1       0.000   0.000   0.000  1.00  0.00           C\n"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "mine.pdb").write_text(atom + "END\n")
    (tmp_path / "in" / "e.toml").write_text('[species]\n"mine.pdb" = 2\n1dzl = 3\n')
    monkeypatch.chdir(tmp_path)
    densities, experiment = load_molecules(read_experiment(Path("in/e.toml")))
    assert experiment.sample.copies == {"mine": 2, "1dzl": 3} and list(densities) == ["mine", "1dzl"]
    (tmp_path / "mine.cif").write_text("")
    (tmp_path / "in" / "e.toml").write_text('[species]\n"mine.pdb" = 2\n"../mine.cif" = 3\n')
    with pytest.raises(UserError, match="two species are called mine"):
        load_molecules(read_experiment(Path("in/e.toml")))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[smaple]\ngold = 1", "smaple is not known; did you mean sample?"),
        ("[sample]\nvesicle = 1", "sample.vesicle is not known; did you mean vesicles?"),
        ("[sample]\ngold = 'many'", "sample.gold = 'many': give a whole number"),
        ("[sample]\nshape = [10, 20]", "sample.shape = [10, 20]: give a list of 3"),
        ("[sample]\nshape = [4, 40, 40]", "shape 4 40"),
        ("[microscope]\ndefocus_um = 3.0", "give a list of 2"),
        ("[microscope]\ndefocus_um = [5.0, 3.0]", "give the lower value first"),
        ("[microscope]\ndqe = 2.0", "dqe = 2.0: must lie within"),
        ("[tilts]\nscheme = 'spiral'", "scheme = 'spiral': give"),
        ("[species]\n1dzl = 0", "copies 0 of 1dzl"),
        ("[species]\n", "name at least one molecule"),
        ("[delivery]\nbits = 16", "bits = 16"),
        ("[output]\nprefix = 'a/b'", "prefix 'a/b'"),
        ("[sample\n", "not a TOML file"),
    ],
)
def test_what_cannot_be_is_told_with_the_file(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UserError) as error:
        read_experiment(tmp_path / "bad.toml")
    assert "bad.toml: " in str(error.value) and told in str(error.value) and "\n" not in str(error.value)


def test_what_cannot_be_is_told_with_the_option() -> None:
    for name, value, told in (
        ("seed", -1, "--it -1: give 0"),
        ("dose_e_per_A2", 0.0, "--it = 0.0: must lie"),
        ("defocus_um", (0.0, 3.0), "--it 0 3"),
        ("gold", -1, "--it -1"),
        ("copies", 0, "--it 0 of"),
    ):
        with pytest.raises(UserError) as error:
            read_experiment(None, {name: ("--it", value)})
        assert str(error.value).startswith(told)
