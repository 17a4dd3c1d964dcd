"""*cluster picking* and its window with the real engine and the released weights, on a small simulated tomogram; some minutes.

What is asked holds for any weights: what the engine's files say is what Scipion's outputs hold, and what was chosen is found.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from conftest import TOMOTWIN, point
from test_with_the_engine import GRID_A, VOXEL_SIZE_A, embedded, simulated  # noqa: F401
from tomo.constants import BOTTOM_LEFT_CORNER

from tomotwin_scipion.clusters import output_name
from tomotwin_scipion.protocols import ProtTwinClusterPicking
from tomotwin_scipion.viewers.viewed_clusters import ViewedClusters
from tomotwin_view.cluster_files import read_clusters_file
from tomotwin_view.star import read_table

IN_WINDOW = 2

pytestmark = [
    pytest.mark.skipif(not os.path.exists(TOMOTWIN), reason="the engine is not installed here"),
    pytest.mark.usefixtures("real_engine"),
]


@pytest.fixture(scope="module")
def clustered(project: Any, launch: Any, embedded: Any) -> Any:  # noqa: F811
    protocol = project.newProtocol(ProtTwinClusterPicking, numberOfThreads=2, binThreads=2, library=False, fewest=4)
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    return launch(protocol)


def places(coordinates: Any) -> np.ndarray:
    """Positions (n, 3) in voxels of the tomogram, sorted."""
    found = [item.getPosition(BOTTOM_LEFT_CORNER) for item in coordinates.iterCoordinates()]
    return np.array(sorted(found))


def written(rows: list) -> np.ndarray:
    return np.array(sorted([float(row["rlnCoordinate" + axis]) for axis in "XYZ"] for row in rows))


def test_each_cluster_is_an_output_of_exactly_the_engines_picks(clustered: Any) -> None:
    picks = read_table(clustered._getPicksFile("tomo_01"), "particles")
    targets = clustered._getTargets()
    assert targets and picks
    for target in targets:
        own = [row for row in picks if row["tomotwinLabel"] == target.name]
        output = getattr(clustered, output_name("coordinates", target.name, []), None)
        assert (output is None) == (not own)
        if own:
            np.testing.assert_allclose(places(output), written(own), atol=1e-3)
            assert {item.getGroupId() for item in output.iterCoordinates()} == {target.group}
    # Each that the engine could average; one whose members' boxes all reach beyond the faces has none.
    averaged = {c["name"] for c in read_clusters_file(clustered._getChosenFolder())["clusters"] if c.get("average")}
    assert {average.getObjLabel() for average in clustered.Averages} == averaged & {t.name for t in targets}
    assert len(averaged) > 0


def test_what_is_chosen_in_the_window_is_an_output_at_once_and_found_by_continue(
    project: Any, launch: Any, clustered: Any
) -> None:
    viewed = ViewedClusters(clustered)
    session = viewed.session
    picked = [number for number, entry in enumerate(session.entries) if entry.picked]
    best = max(picked, key=lambda number: int((session.label == number).sum()))
    rows = np.flatnonzero(session.label == best)
    rows = rows[np.argsort(-session.candidates.probability[rows])][:6]
    session.select(rows)
    mine = session.new_entry("mine")
    session.set_picked([number for number in range(len(session.entries)) if number != mine], False)
    assert "selected_mine" in viewed.register(session)

    run = project.getProtocol(clustered.getObjId(), fromRuns=False)
    table = read_table(run._getExtraPath("clusters", "candidates.star"), "particles")
    chosen = [row for row in table if int(row["tomotwinId"]) in session.candidates.ids[rows]]
    np.testing.assert_allclose(places(run.selected_mine), written(chosen), atol=1e-3)

    run.chosen.set(IN_WINDOW)
    run.runMode.set(0)
    run = launch(run)
    found = places(run.coordinates_mine)
    np.testing.assert_allclose(found, written(read_table(run._getPicksFile("tomo_01"), "particles")), atol=1e-3)
    away_A = np.linalg.norm(found[None] - written(chosen)[:, None], axis=2).min(axis=1) * VOXEL_SIZE_A
    # Of places that are near each other the best is kept, and what six places agree on may be found better elsewhere: how many
    # of them are picks differs with the precision in which the processor computes.
    assert (away_A < 2 * GRID_A).any()
    assert session.has_voxels
