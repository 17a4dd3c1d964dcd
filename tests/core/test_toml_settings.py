"""Settings in TOML: what is written comes back, and what does not fit is told in one sentence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tomotwin_core.errors import UserError
from tomotwin_core.toml_settings import explanations, read_settings, with_assignments, with_values, write_settings


@dataclass(frozen=True)
class Inner:
    """What is inside.

    rate : how fast.  shape, names : of the thing,
    and what it is called.
    """

    rate: float = 1e-3
    shape: tuple[int, int, int] = (1, 2, 3)
    names: tuple[str, ...] = ("a", 'b "quoted" \\')
    limit: float | None = None
    on: bool = True
    sign: Literal["dark", "bright"] = "dark"


@dataclass(frozen=True)
class Outer:
    """seed : of all random numbers.  copies : of each."""

    seed: int = 4
    inner: Inner = field(default_factory=Inner)
    copies: Mapping[str, int] = field(default_factory=dict)


def test_settings_written_and_read_are_the_same_with_their_explanations(tmp_path: Path) -> None:
    settings = Outer(7, Inner(0.25, (9, 8, 7), (), None, False, "bright"), {"a-1": 2, "b c.mrc": 3})
    write_settings(tmp_path / "s.toml", settings, "What this is\nfor")
    text = (tmp_path / "s.toml").read_text()
    assert text.startswith("# What this is\n# for\n") and "# how fast\nrate = 0.25" in text and "# limit =" in text
    assert text.count("# of the thing, and what it is called") == 1, "said once for both"
    assert "# of each\n[copies]\na-1 = 2\n" in text
    assert read_settings(tmp_path / "s.toml", Outer()) == settings
    write_settings(tmp_path / "d.toml", Outer())
    assert read_settings(tmp_path / "d.toml", settings).inner.names == Outer().inner.names


def test_a_field_is_explained_by_its_entry_in_the_docstring() -> None:
    both = "of the thing, and what it is called"
    assert explanations(Inner) == {"rate": "how fast", "shape": both, "names": both}


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[inner]\nrate = 2\nlimit = 3\n")
    read = read_settings(tmp_path / "s.toml", Outer())
    assert read == Outer(4, Inner(2.0, limit=3.0)) and isinstance(read.inner.rate, float)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sed = 1", "sed is not known; did you mean seed?"),
        ("colour = 1", "colour is not known; there are copies, inner, seed"),
        ("[inner]\nrte = 1", "inner.rte is not known"),
        ("seed = 1.5", "seed = 1.5: give a whole number"),
        ("seed = true", "give a whole number"),
        ("[inner]\nshape = [1, 2]", "give a list of 3, each a whole number"),
        ("[inner]\non = 1", "give true or false"),
        ('[inner]\nsign = "up"', 'inner.sign = \'up\': give "dark" or "bright"'),
        ("copies = 3", "copies = 3: give a table of names with a whole number each"),
        ("[copies]\nx = 1.5", "copies.x = 1.5: give a whole number"),
        ('[inner]\nlimit = "x"', "give a number"),
        ("inner = 3", "inner is a table"),
        ("seed = ", "not a TOML file"),
    ],
)
def test_what_does_not_fit_is_told_with_file_and_name(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UserError, match="bad.toml") as error:
        read_settings(tmp_path / "bad.toml", Outer())
    assert told in str(error.value)
    with pytest.raises(UserError, match="no such file"):
        read_settings(tmp_path / "absent.toml", Outer())


def test_single_values_are_assigned_by_name() -> None:
    changed = with_assignments(Outer(), ["inner.rate=0.5", "inner.shape=[4, 5, 6]", "seed=2", "inner.names=['x']"])
    assert changed == Outer(2, Inner(0.5, (4, 5, 6), ("x",)))
    with pytest.raises(UserError, match="TABLE.NAME=VALUE"):
        with_assignments(Outer(), ["seed"])
    with pytest.raises(UserError, match="--set seed=x"):
        with_assignments(Outer(), ["seed=x"])
    with pytest.raises(UserError, match="--steps"):
        with_values(Outer(), {"seed": "x"}, "--steps")
