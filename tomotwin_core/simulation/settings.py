"""The experiment as a settings file: what is in the ice, how it is imaged, what is written.

    [species]         molecule = copies that are tried in each tomogram
    [sample]          SampleSettings
    [microscope]      Acquisition, what is not in one of the next two
    [tilts]           Acquisition: the scheme, and the errors that the alignment has left
    [reconstruction]  Acquisition: from the tilt series to the tomogram
    [delivery]        Delivery: what a user does to a tomogram before it is picked
    [output]          DataSet: how many, and which files
    [random]          DataSet: the seed, and whether everything is drawn

Names, defaults and explanations are those of the dataclasses: a field added to one of them is read, written and
explained here without being listed again. A value is checked where it is used, by its dataclass; what is wrong with it
is told with the file or the option it came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from tomotwin_core.errors import UserError
from tomotwin_core.simulation.acquisition import Acquisition
from tomotwin_core.simulation.building import SampleSettings
from tomotwin_core.simulation.delivery import Delivery
from tomotwin_core.toml_settings import explanations, read_settings, with_assignments, with_values, write_settings

# Held-out and trained molecules of all sizes, told apart at 10 A.
DEFAULT_SPECIES = ("4v6x", "1dzl", "1eab", "1qvr", "5t4o", "1g3i", "3uwx", "2iy5", "1a9x", "1n2c")
DEFAULT_COPIES = 30
# A first tomogram that takes seconds.
_SHAPE, _VOXEL_SIZE_A = (110, 220, 220), 8.0
_DEFOCUS_UM = (2.5, 5.0)
# Of the tomogram's height, where it is not said how thick the ice is.
_ICE_OF_HEIGHT = 0.8

_TILTS = (
    "tilt_min_deg",
    "tilt_max_deg",
    "tilt_step_deg",
    "scheme",
    "start_tilt_deg",
    "missing_tilts_deg",
    "shift_error_A",
    "tilt_error_deg",
    "rotation_error_deg",
    "tilt_axis_error_deg",
)
_RECONSTRUCTION = ("filter", "sirt_iterations", "ctf_corrected", "dose_weighted")
_RANDOM = ("seed", "draw")
# Comes from a real series (--project), not from a file of settings.
_NOT_IN_FILE = ("per_tilt",)
_HEADING = """An experiment for `tomotwin simulate FILE.toml --out DIR`.
What a file leaves out has its default; each is stated here."""


# More than any sample holds, or anybody simulates: a slip of the pen.
_MOST_COPIES, _MOST_TOMOGRAMS = 1_000_000, 100_000


@dataclass(frozen=True)
class DataSet:
    """What is made and written.

    tomograms : how many.  first : number of the first; a data set can be made in parts.
    prefix : of their names: PREFIX_01 and so on.
    tilt_series : the aligned tilt series too: NAME.st, NAME.rawtlt, NAME.st.mdoc.
    labels : NAME_labels.mrc, what each voxel belongs to; labels.csv says which number is which.
    noise_free : NAME_noisefree.mrc, the same tomogram without noise and alignment errors.
    references : the molecules' density maps: references/SPECIES.mrc.
    seed : of all random numbers; the same seed gives the same tomograms.
    draw : draw sample, microscope and delivery of every tomogram anew, as for training; of the other settings only shape,
    voxel_size_A and the species count then, and thickness_A and occupied as what is drawn about.
    """

    tomograms: int = 2
    first: int = 1
    prefix: str = "tomo"
    tilt_series: bool = False
    labels: bool = False
    noise_free: bool = False
    references: bool = False
    seed: int = 1
    draw: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.tomograms <= _MOST_TOMOGRAMS:
            raise UserError(f"tomograms {self.tomograms}: give at least one, {_MOST_TOMOGRAMS} at most")
        if self.first < 1:
            raise UserError(f"first {self.first}: tomograms are counted from 1")
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", self.prefix):
            raise UserError(f"prefix {self.prefix!r}: files' names begin with it; give letters, digits, - and _")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed {self.seed}: give 0 or a positive number below 2^32")


@dataclass(frozen=True)
class Experiment:
    """A data set to simulate.

    species : molecule -> copies.  sample : its copies are by name once the species are loaded.  acquisition : its defocus
    does not count.  defocus_um : the underfocus of each tomogram is drawn between these two.
    """

    species: Mapping[str, int]
    sample: SampleSettings
    acquisition: Acquisition = field(default_factory=Acquisition)
    defocus_um: tuple[float, float] = _DEFOCUS_UM
    delivery: Delivery = field(default_factory=Delivery)
    dataset: DataSet = field(default_factory=DataSet)

    def __post_init__(self) -> None:
        if not self.species:
            raise UserError("species: name at least one molecule")
        for name, copies in self.species.items():
            if not 1 <= copies <= _MOST_COPIES:
                raise UserError(f"copies {copies} of {name}: give at least one, {_MOST_COPIES} at most")
        low, high = self.defocus_um
        if not 0.1 <= low <= high <= 20:
            raise UserError(f"defocus_um {low:g} {high:g}: give the lower value first, both within 0.1 to 20 um")


def read_experiment(
    path: Path | None,
    options: Mapping[str, tuple[str, Any]] | None = None,
    assignments: Sequence[str] = (),
) -> Experiment:
    """The experiment of a settings file, or the default one, with what the command line says over it.

    Parameters
    ----------
    path : Path or None
        Molecules that are files are taken relative to this file's folder.
    options : mapping
        Name of a setting -> (the option that gives it, its value). `copies` stands for those of every species.
    assignments
        More settings as TABLE.NAME=VALUE.

    Raises
    ------
    UserError
        One sentence that names the file or the option, and the setting.
    """
    options = dict(options or {})
    file = _File() if path is None else _beside(path, read_settings(path, _File()))
    option, copies = options.pop("copies", ("", None))
    for name, (given_by, value) in options.items():
        table = next((t for t, names in _tables().items() if name in names), None)
        file = with_values(file, {table: {name: value}} if table else {name: value}, given_by)
    file = with_assignments(file, assignments)
    try:
        if copies is not None:
            file = replace(file, species=dict.fromkeys(file.species, copies))
            options["copies"] = option, copies
        return file.experiment()
    except UserError as problem:
        sentence = str(problem)
        for name, (given_by, _) in options.items():
            if re.match(rf"{name}\b", sentence):
                raise UserError(given_by + sentence.removeprefix(name)) from None
        raise UserError(f"{path}: {sentence}" if path else sentence) from None


def write_experiment(path: Path, experiment: Experiment) -> None:
    """All settings of an experiment as a file that explains itself."""
    write_settings(path, _File.of(experiment), _HEADING)


def _table(owner: type, names: Sequence[str], types: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    """A dataclass of some of the fields of another, with their explanations and without its checks."""
    known = {f.name: f for f in fields(owner)}
    kinds = {**get_type_hints(owner), **types}
    text = "\n".join(f"{name} : {said}." for name, said in explanations(owner).items() if name in names)
    made = [(n, kinds[n], field(default=defaults.get(n, known[n].default))) for n in names]
    return make_dataclass(owner.__name__, made, frozen=True, namespace={"__doc__": text})


def _tables() -> dict[str, set[str]]:
    """Names of the settings in each table of the file."""
    file = _File()
    return {
        f.name: {inner.name for inner in fields(getattr(file, f.name))} for f in fields(file) if f.name != "species"
    }


def _beside(path: Path, file: _File) -> _File:
    def found(name: str) -> str:
        beside = path.parent / name
        return str(beside) if beside.is_file() else name

    return replace(file, species={found(name): copies for name, copies in file.species.items()})


def _others(owner: type, *names: str) -> list[str]:
    return [f.name for f in fields(owner) if f.name not in names]


_Sample = _table(
    SampleSettings,
    _others(SampleSettings, "copies"),
    {"thickness_A": float | None},
    {"shape": _SHAPE, "voxel_size_A": _VOXEL_SIZE_A, "thickness_A": None},
)
_Microscope = _table(
    Acquisition,
    _others(Acquisition, *_TILTS, *_RECONSTRUCTION, *_NOT_IN_FILE),
    {"defocus_um": tuple[float, float]},
    {"defocus_um": _DEFOCUS_UM},
)
_Tilts = _table(Acquisition, _TILTS, {}, {})
_Reconstruction = _table(Acquisition, _RECONSTRUCTION, {}, {})
_Delivery = _table(Delivery, _others(Delivery), {}, {})
_Output = _table(DataSet, _others(DataSet, *_RANDOM), {}, {})
_Random = _table(DataSet, _RANDOM, {}, {})


@dataclass(frozen=True)
class _File:
    """The settings file.

    species : Molecules, and how many copies of each are tried in one tomogram. A molecule is the id of one in the
    library (`tomotwin library list`), pdb:ID, a structure file (.cif, .pdb) or a density map (.mrc); files are sought
    beside this one. all-heldout stands for every molecule that the released model never saw.
    """

    species: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(DEFAULT_SPECIES, DEFAULT_COPIES))
    sample: Any = field(default_factory=_Sample)
    microscope: Any = field(default_factory=_Microscope)
    tilts: Any = field(default_factory=_Tilts)
    reconstruction: Any = field(default_factory=_Reconstruction)
    delivery: Any = field(default_factory=_Delivery)
    output: Any = field(default_factory=_Output)
    random: Any = field(default_factory=_Random)

    @classmethod
    def of(cls, experiment: Experiment) -> _File:
        def filled(table: Any, owner: Any, **other: Any) -> Any:
            return table(**{f.name: other.get(f.name, getattr(owner, f.name)) for f in fields(table)})

        taken = experiment.acquisition
        return cls(
            experiment.species,
            filled(_Sample, experiment.sample),
            filled(_Microscope, taken, defocus_um=experiment.defocus_um),
            filled(_Tilts, taken),
            filled(_Reconstruction, taken),
            filled(_Delivery, experiment.delivery),
            filled(_Output, experiment.dataset),
            filled(_Random, experiment.dataset),
        )

    def experiment(self) -> Experiment:
        sample = asdict(self.sample)
        if sample["thickness_A"] is None:
            sample["thickness_A"] = _ICE_OF_HEIGHT * self.sample.shape[0] * self.sample.voxel_size_A
        taken = {**asdict(self.microscope), **asdict(self.tilts), **asdict(self.reconstruction)}
        defocus = taken.pop("defocus_um")
        return Experiment(
            self.species,
            SampleSettings(**sample),
            Acquisition(**taken),
            defocus,
            Delivery(**asdict(self.delivery)),
            DataSet(**asdict(self.output), **asdict(self.random)),
        )
