"""Wizards: what they measure, and what they write into a form."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import SHAPE, TOMOTWIN, VOXEL_SIZE_A, point, write_mrc
from pwem import Domain
from pwem.objects import Volume
from pyworkflow.object import Pointer
from pyworkflow.viewer import DESKTOP_TKINTER
from test_evaluate_picks import SIDE_VOX
from test_evaluate_picks import sets as sets
from test_streaming_and_continue import Growing

from tomotwin_scipion import wizards
from tomotwin_scipion.protocols import (
    ProtTwinClusterPicking,
    ProtTwinCreateMask,
    ProtTwinEvaluatePicks,
    ProtTwinReferencePicking,
)
from tomotwin_scipion.viewers.viewed_picks import ViewedPicks

RADIUS_A, MAP_VOXEL_A = 60.0, 5.0

needs_engine = pytest.mark.skipif(not os.path.exists(TOMOTWIN), reason="the engine is not installed here")


class Form:
    """What a wizard sees of a form, and what it was told."""

    root = None

    def __init__(self, protocol: Any) -> None:
        self.protocol, self.values, self.said = protocol, {}, []  # type: ignore[var-annotated]

    def setVar(self, name: str, value: Any) -> None:
        self.values[name] = value


@pytest.fixture(autouse=True)
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Sentences that wizards showed."""
    said: list[str] = []
    for name in ("showInfo", "showWarning"):
        monkeypatch.setattr(wizards, name, lambda title, text, parent: said.append(text))
    return said


@pytest.fixture
def picking(project: Any, sets: Any, tmp_path: Path) -> Any:
    """A form of reference picking with a ball as its reference, at 10 A a voxel."""
    grid = np.indices((41, 41, 41)) - 20
    ball = (np.linalg.norm(grid, axis=0) * MAP_VOXEL_A <= RADIUS_A).astype(float)
    write_mrc(tmp_path / "ball.mrc", ball, voxel_size=1.0)  # Scipion is told the right one
    volume = Volume()
    volume.setFileName(str(tmp_path / "ball.mrc"))
    volume.setSamplingRate(MAP_VOXEL_A)
    sets._defineOutputs(ball=volume)
    protocol = project.newProtocol(ProtTwinReferencePicking)
    protocol.inputReferences.append(Pointer(sets, extended="ball"))
    protocol.inputEmbeddings.set(SimpleNamespace(getSamplingRate=lambda: VOXEL_SIZE_A))
    return protocol


def test_each_value_that_can_be_measured_has_its_wizard(project: Any) -> None:
    found = {
        cls: {
            name: wizard.__name__
            for name, wizard in Domain.findWizards(project.newProtocol(cls), DESKTOP_TKINTER).items()
        }
        for cls in (ProtTwinReferencePicking, ProtTwinClusterPicking, ProtTwinCreateMask, ProtTwinEvaluatePicks)
    }
    planes = dict.fromkeys(("zFirst", "zLast"), "TwinZRangeWizard")
    threshold = dict.fromkeys(("threshold", "thresholdMode"), "TwinThresholdWizard")
    assert found[ProtTwinReferencePicking] == {
        **planes,
        **threshold,
        "diameter": "TwinDiameterWizard",
        "boxSize": "TwinBoxSizeWizard",
    }
    assert found[ProtTwinClusterPicking] == {**planes, **threshold}
    assert found[ProtTwinCreateMask] == planes
    assert found[ProtTwinEvaluatePicks] == {"diameter": "TwinDiameterWizard"}


@needs_engine
def test_a_ball_is_as_wide_as_it_was_made_and_the_largest_target_sets_diameter_and_box(
    picking: Any, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wizards.Plugin, "getProgram", lambda: TOMOTWIN)
    found = wizards.measured_diameters(picking)
    assert found == {"ball": pytest.approx(2 * RADIUS_A, abs=MAP_VOXEL_A)}
    picking.identifiers.set("library:1dzl")
    form = Form(picking)
    wizards.TwinDiameterWizard().show(form)
    wide = wizards.measured_diameters(picking)["library:1dzl"]
    assert wide != found["ball"]
    largest = max(wide, found["ball"])
    assert form.values == {"diameter": pytest.approx(largest, abs=5)} and form.values["diameter"] >= largest
    assert "ball: 12" in messages[0] and "the largest, holds for all" in messages[0]
    wizards.TwinBoxSizeWizard().show(form)
    box = form.values["boxSize"]
    assert box % 2 == 0 and 1.5 * largest <= box * VOXEL_SIZE_A < 1.5 * largest + 2 * VOXEL_SIZE_A
    picking.identifiers.set("library:none")
    wizards.TwinDiameterWizard().show(form)
    assert "tomotwin: error:" in messages[1] and "none" in messages[1]


def test_example_positions_are_as_large_as_their_box_and_nothing_cannot_be_measured(
    project: Any,
    sets: Any,
    messages: list[str],
) -> None:
    protocol = project.newProtocol(ProtTwinReferencePicking)
    form = Form(protocol)
    wizards.TwinDiameterWizard().show(form)
    assert form.values == {} and "There is nothing to measure" in messages[0]
    protocol.inputExamples.append(Pointer(sets, extended="picks"))
    wizards.TwinDiameterWizard().show(form)
    assert form.values == {"diameter": SIDE_VOX * 10}
    wizards.TwinBoxSizeWizard().show(form)
    assert "Choose embedded tomograms first" in messages[-1]


def test_the_diameter_of_an_evaluation_is_that_of_the_sets_whatever_stands_in_the_form(
    project: Any,
    sets: Any,
    messages: list[str],
) -> None:
    protocol = project.newProtocol(ProtTwinEvaluatePicks, diameter=77, kinds=1)
    form = Form(protocol)
    wizards.TwinDiameterWizard().show(form)
    assert "Choose picks and true positions first" in messages[0]
    point(protocol.inputPicks, sets, "picks")
    point(protocol.inputTruth, sets, "truth")
    wizards.TwinDiameterWizard().show(form)
    assert form.values == {"diameter": 160} and protocol.diameter.get() == 77


def test_planes_are_chosen_on_side_views_on_which_the_rest_is_tinted(
    project: Any, tmp_path: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = Growing(project, tmp_path)
    growing.add("a", "z")
    protocol = project.newProtocol(ProtTwinCreateMask, zFirst=4, zLast=20)
    form = Form(protocol)
    wizards.TwinZRangeWizard().show(form)
    assert messages == ["Choose tomograms first."]
    point(protocol.inputTomograms, growing.protocol, "Tomograms")
    opened = []
    monkeypatch.setattr(wizards.ZRangePlotter, "show", lambda view: opened.append(view))
    wizards.TwinZRangeWizard().show(form)
    (view,) = opened
    assert view.range == (4, 20) and "a (1 of 2), 30 planes" in view.figure._suptitle.get_text()
    widths = [axes.images[0].get_array().shape for axes in view.axes.values()]
    assert widths == [(SHAPE[0], SHAPE[2]), (SHAPE[0], SHAPE[1])]  # z upright in both
    view.slider.set_val((6, 25))
    for axes in view.axes.values():
        below, above = (patch.get_xy() for patch in axes.patches)
        assert below[:, 1].max() == 5.5 and above[:, 1].min() == 25.5
    view.turn(1)
    assert "z (2 of 2)" in view.figure._suptitle.get_text() and view.range == (6, 25)
    view.hand_on()
    assert form.values == {"zFirst": 6, "zLast": 25}


def test_the_threshold_that_is_shown_in_the_picking_window_goes_into_the_form(
    project: Any, sets: Any, messages: list[str]
) -> None:
    form = Form(project.newProtocol(ProtTwinReferencePicking))
    wizards.TwinThresholdWizard().show(form)
    assert form.values == {} and "run the protocol once" in messages[0]
    session = ViewedPicks(sets.picks, sets).session
    session.set_score_min(0.65, 1)
    session.edit_target(1)
    said = wizards.use_threshold(form, session)
    assert form.values == {"thresholdMode": 1, "threshold": 0.65}
    assert "0.65, that of group 6 in t1, for all" in said
    for target in range(2):
        session.set_score_min(0.55, target)
    assert wizards.use_threshold(form, session) == "The form now takes 0.55."
    session.score_min[:] = np.nan
    with pytest.raises(RuntimeError, match="no candidates of group 6 in t1"):
        wizards.use_threshold(form, session)
