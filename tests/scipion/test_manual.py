"""The manual keeps up with the plugin: a page for each protocol with its form as it is, all settings explained."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import tomotwin_scipion
from tomotwin_scipion import constants

DOCS = Path(__file__).parents[2] / "docs"
TEMPLATES = Path(tomotwin_scipion.__file__).parent / "templates"


@pytest.fixture(scope="module")
def forms() -> Any:
    """The script that writes the tables."""
    spec = importlib.util.spec_from_file_location("forms", DOCS / "forms.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_protocol_has_a_page_with_its_form_as_it_is_now(forms: Any) -> None:
    protocols = forms.plugin_protocols()
    assert {"embed_tomograms", "reference_picking"} <= set(protocols)
    assert {page.stem for page in (DOCS / "protocols").glob("*.md")} == set(protocols)
    for name, protocol in protocols.items():
        text = (DOCS / "protocols" / f"{name}.md").read_text()
        assert forms.with_table(text, forms.table(protocol)) == text, f"{name}.md is out of date: run make docs"


def test_a_form_becomes_a_table_with_defaults_choices_and_help(forms: Any) -> None:
    rows = forms.table(forms.plugin_protocols()["reference_picking"]).splitlines()
    (threshold,) = [row for row in rows if row.startswith("| **Threshold** ")]
    assert "| **proposed**, fixed value, expected FDR |" in threshold and "*proposed*: in each tomogram" in threshold
    assert any(row.startswith("| *Box size (voxels)* (expert) | 0 | ") for row in rows)
    assert "### Region" in rows and not any("GPU" in row for row in rows)


def test_every_picture_of_a_window_is_shown_and_every_picture_shown_is_there() -> None:
    pages = [*DOCS.glob("*.md"), *(DOCS / "protocols").glob("*.md")]
    shown = {name for page in pages for name in re.findall(r"screenshots/([\w.]+)\)", page.read_text())}
    assert shown == {path.name for path in (DOCS / "screenshots").iterdir()}
    assert sum(path.stat().st_size for path in (DOCS / "screenshots").iterdir()) < 3_000_000


def test_every_variable_of_the_configuration_is_explained() -> None:
    told = (DOCS / "facilities.md").read_text()
    variables = {name for name in vars(constants) if name.startswith("TOMOTWIN_")}
    assert len(variables) >= 8
    assert {name for name in variables if f"| `{name}` |" not in told} == set()


def test_every_template_is_listed_with_blanks_that_it_has() -> None:
    rows = re.findall(r"^\| `(tomotwin_\w+)` \| (.*) \|$", (DOCS / "facilities.md").read_text(), re.MULTILINE)
    templates = {path.name.split(".")[0]: path.read_text() for path in TEMPLATES.glob("*.template")}
    assert {name for name, _ in rows} == set(templates)
    for name, told in rows:
        blanks = set(re.findall(r"~[^~|]*\|[^~|]*\|\d+\|(\w+)~", templates[name]))
        named = set(re.findall(r"`(\w+)`", told))
        assert named <= blanks, f"{name} has no {', '.join(named - blanks)}"


def test_the_manual_names_the_version_that_is_installed() -> None:
    told = (DOCS / "facilities.md").read_text()
    assert f"tomotwin_scipion-{tomotwin_scipion.__version__}-py3-none-any.whl" in told
    assert f"tomotwin_engine-{constants.ENGINE_VERSION}" in told
