"""The form of *reference picking* in Scipion's own window, opened beside a run that is selected: what Scipion fills in by itself,
and what of it counts. On a virtual screen."""

from __future__ import annotations

from typing import Any

import pytest
from pyworkflow.object import Pointer
from test_protocols_in_a_project import embedded, picked, references, tomograms  # noqa: F401

from tomotwin_scipion.protocols import ProtTwinReferencePicking
from tomotwin_scipion.protocols.refinement import accepted_picks


@pytest.fixture
def form(screen: str, project: Any, embedded: Any, references: Any, picked: Any) -> Any:  # noqa: F811
    from pyworkflow.gui.project import ProjectWindow  # noqa: F401  the form alone cannot be imported first
    from pyworkflow.gui.form import FormWindow  # isort: skip

    protocol = project.newProtocol(ProtTwinReferencePicking)
    protocol.inputEmbeddings.set(embedded)
    protocol.inputEmbeddings.setExtended("Embeddings")
    protocol.inputReferences.append(Pointer(references, extended="outputVolumes"))
    form = FormWindow("form", protocol, lambda *args, **options: "", previousProt=picked)
    yield form
    form.root.destroy()


def test_picks_of_the_selected_run_are_filled_in_by_scipion_and_taken_out_again_unless_asked_for(form: Any) -> None:
    protocol = form.protocol
    form.root.geometry("900x700+0+0")
    form.root.deiconify()
    form.root.update()
    assert accepted_picks(protocol) is None and protocol.validate() == []
    form._checkAllChanges(toggleWidgetVisibility=False)  # as when Execute is pressed
    assert protocol.acceptedPicks.get() is None and protocol.allPicks.get() is None
