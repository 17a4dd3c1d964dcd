"""*cluster picking* in a real Scipion project, its window and its outputs, with a stand-in for the engine."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import VOXEL_SIZE_A, planted_tomogram, point, write_mrc
from pwem import Domain
from pyworkflow.viewer import DESKTOP_TKINTER
from test_protocols_in_a_project import positions
from tomo.constants import BOTTOM_LEFT_CORNER
from tomo.objects import SetOfAverageSubTomograms, SetOfCoordinates3D
from tomo.protocols import ProtImportTomograms

from tomotwin_scipion.clusters import parse_clusters, selection_of, selection_of_file
from tomotwin_scipion.errors import TwinError
from tomotwin_scipion.protocols import ProtTwinClusterPicking
from tomotwin_scipion.protocols.protocol_embed_tomograms import ProtTwinEmbedTomograms
from tomotwin_scipion.targets import read_groups
from tomotwin_scipion.viewers import TwinClustersViewer
from tomotwin_view.cluster_files import read_selection

# Of the stand-in: kinds 1 and 2 are species, 6 a membrane, 7 rare: in no cluster at first.
PLANTED = {
    "first": {(5, 7, 11): 1, (60, 40, 20): 2, (33, 3, 29): 1, (20, 20, 20): 6, (41, 21, 11): 7},
    "TS_2_nd": {(69, 49, 0): 2, (1, 2, 3): 2, (30, 30, 15): 6, (50, 10, 5): 7},
}
FILE_NAMES = {"first": "first.mrc", "TS_2_nd": "2-nd.mrc"}
ALL_SPECIES, NAMED, IN_WINDOW, FROM_FILE = range(4)


def of_kinds(*kinds: int) -> dict[str, set[tuple]]:
    found = {tsId: {xyz for xyz, kind in places.items() if kind in kinds} for tsId, places in PLANTED.items()}
    return {tsId: places for tsId, places in found.items() if places}


def places(coordinates: Any) -> dict[str, set[tuple]]:
    return {tsId: set(found) for tsId, found in positions(coordinates).items()}


@pytest.fixture(scope="module")
def embedded(project: Any, launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tomograms")
    for tsId, particles in PLANTED.items():
        write_mrc(folder / FILE_NAMES[tsId], planted_tomogram(particles), VOXEL_SIZE_A)
    tomograms = launch(
        project.newProtocol(ProtImportTomograms, filesPath=str(folder), filesPattern="*.mrc", samplingRate=VOXEL_SIZE_A)
    )
    protocol = project.newProtocol(ProtTwinEmbedTomograms, numberOfThreads=1)
    point(protocol.inputTomograms, tomograms, "Tomograms")
    return launch(protocol)


def new_run(project: Any, embedded: Any, **values: Any) -> Any:
    protocol = project.newProtocol(ProtTwinClusterPicking, **{"numberOfThreads": 3, **values})
    point(protocol.inputEmbeddings, embedded, "Embeddings")
    return protocol


@pytest.fixture(scope="module")
def picked(project: Any, launch: Any, embedded: Any) -> Any:
    """All species as they were proposed."""
    return launch(new_run(project, embedded))


def again(project: Any, launch: Any, run: Any, **values: Any) -> Any:
    """Continue the run with other settings."""
    run = project.getProtocol(run.getObjId(), fromRuns=False)
    for name, value in values.items():
        getattr(run, name).set(value)
    run.runMode.set(0)
    return launch(run)


def test_each_species_is_an_output_with_the_planted_places_in_scipions_frame(picked: Any) -> None:
    assert positions(picked.output3DCoordinates) == {
        tsId: {xyz: kind for xyz, kind in places.items() if kind < 3} for tsId, places in PLANTED.items()
    }
    assert places(picked.coordinates_cluster_01) == of_kinds(1)
    assert places(picked.coordinates_cluster_02) == of_kinds(2)
    names = {name for name, _ in picked.iterOutputAttributes()}
    assert names == {"output3DCoordinates", "coordinates_cluster_01", "coordinates_cluster_02", "Averages"}
    for kind, output in enumerate((picked.coordinates_cluster_01, picked.coordinates_cluster_02), start=1):
        assert isinstance(output, SetOfCoordinates3D) and output.getSamplingRate() == VOXEL_SIZE_A
        assert output.getBoxSize() == 20  # 1.5 times 101 and 102 A at 8 A a voxel, rounded up to even
        assert {item.getGroupId() for item in output.iterCoordinates()} == {kind}
        assert all(0.9 < item.getScore() <= 0.99 for item in output.iterCoordinates())
        assert sorted(output.getPrecedents().getTSIds()) == sorted(PLANTED)


def test_averages_groups_and_summary_tell_what_each_species_is(picked: Any) -> None:
    import mrcfile

    averages = picked.Averages
    assert isinstance(averages, SetOfAverageSubTomograms) and averages.getSamplingRate() == 10.0
    seen = {}
    for item in averages.iterItems():
        with mrcfile.open(item.getFileName()) as file:
            seen[item.getClassId()] = file.data.max()
    assert seen == {1: 1, 2: 2}
    names, diameters = read_groups(picked._getExtraPath("groups.csv"))
    assert (names, diameters) == ({1: "cluster_01", 2: "cluster_02"}, {1: 101.0, 2: 102.0})
    text = "\n".join(picked._summary())
    assert "*Clusters:* 2 species were found." in text
    assert "*cluster_01*  species,  certainty 0.90,  2 places,  101 Å" in text
    assert "*cluster_06*  membrane,  2 places,  106 Å,  most like 6abc (0.80)" in text
    assert "*5 picks* in 2 tomograms" in text and "*1*  cluster_01,  101 Å,  0.500,  2 picks" in text
    methods = " ".join(picked._methods())
    assert "gave 3 clusters; 2 of them were taken" in methods
    assert set(picked._citations()) <= set(Domain.getPlugin("tomotwin_scipion").bibtex.__doc__.replace("{", ",").split(","))


def test_the_engine_is_told_tomograms_by_their_tsids_model_and_settings(
    project: Any, launch: Any, embedded: Any, calls: Any
) -> None:
    """And where nothing is found the run ends well, without outputs, and says so."""
    run = launch(new_run(project, embedded, fewest=99, salience=2.5, seed=7, library=False, useGpu=False, binThreads=2))
    (call,) = (call for call in calls() if call[0] == "cluster")
    zarrs = [embedded._getExtraPath(f"{tsId}.zarr") for tsId in sorted(PLANTED)]
    tomograms = [run._getExtraPath("tomograms", f"{tsId}.mrc") for tsId in sorted(PLANTED)]
    assert call[1:3] == zarrs and call[call.index("--tomograms") + 1 :][:2] == tomograms
    assert all(os.path.exists(path) for path in tomograms)
    assert "--model released --fewest 99 --salience 2.5 --seed 7 --no-library --device cpu --threads 2" in " ".join(call)
    assert [call[0] for call in calls()] == ["cluster"]
    assert not list(run.iterOutputAttributes())
    assert "Nothing recurs in these tomograms." in run._summary()[0]


def test_named_merged_and_rare_clusters_are_picked_by_continue_without_clustering_anew(
    project: Any, launch: Any, embedded: Any, calls: Any
) -> None:
    run = launch(new_run(project, embedded))
    before = len(calls())
    run = again(project, launch, run, chosen=NAMED, named="cluster_01+cluster_06 as mixed, rare_01 as few", leftovers=True)
    clusterings = [call for call in calls()[before:] if call[0] == "cluster"]
    assert [call[1:3] for call in clusterings] == [
        [run._getExtraPath("clusters"), "--leftover"],
        [run._getExtraPath("clusters"), "--selection"],
    ]
    selection = read_selection(run._getExtraPath("selection.json"))
    assert [(entry["name"], entry["from"], len(entry["add"])) for entry in selection] == [
        ("mixed", ["cluster_01", "cluster_06"], 0),
        ("few", [], 2),
    ]
    assert places(run.coordinates_mixed) == of_kinds(1, 6) and places(run.coordinates_few) == of_kinds(7)
    assert places(run.output3DCoordinates) == of_kinds(1, 6, 7) and run.Averages.getSize() == 2
    # What was picked before stays, and no group stands for two things.
    assert places(run.coordinates_cluster_02) == of_kinds(2)
    names, _ = read_groups(run._getExtraPath("groups.csv"))
    assert names == {1: "cluster_01", 2: "cluster_02", 3: "mixed", 4: "few"}
    assert {item.getGroupId() for item in run.coordinates_few.iterCoordinates()} == {4}
    text = "\n".join(run._summary())
    assert "*3*  mixed" in text and "*1*  cluster_01," not in text
    assert "Among what is left over" in text
    # What was named and is not there is said with what there is.
    run = project.getProtocol(run.getObjId(), fromRuns=False)
    run.named.set("cluster_11")
    with pytest.raises(TwinError, match="there is no cluster_11, but cluster_01, cluster_02, cluster_06, rare_01"):
        run._getSelection()


def settle(window: Any) -> None:
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        window.root.update()
        time.sleep(0.01)


def test_what_is_chosen_in_the_window_becomes_outputs_and_then_picks(
    screen: str, project: Any, launch: Any, picked: Any, calls: Any
) -> None:
    import tkinter

    assert Domain.findViewers(picked, DESKTOP_TKINTER)[0] is TwinClustersViewer
    root = tkinter.Tk()
    viewer = TwinClustersViewer(project=project, protocol=picked, parent=SimpleNamespace(root=root))
    (view,) = viewer._visualize(picked)
    view.show()
    window, session = view.window, view.window.session
    settle(window)
    assert session.names() == ["cluster_01", "cluster_02", "cluster_06"] and window.slices is not None
    assert session.tomograms[0].open()[11, 7, 5] == -1 or session.tomograms[1].open()[11, 7, 5] == -1
    # Merge the second species with the membrane, name it, and draw a line around what is left over.
    window.clusters.selection_set("1", "2")
    settle(window)
    window._do(window._merge)
    session.rename(1, "my thing")
    settle(window)
    umap = session.candidates.umap
    rows = np.flatnonzero(session.label < 0)
    middle, reach = umap[rows].mean(axis=0), np.ptp(umap[rows], axis=0).max() / 2 + 0.4
    corners = middle + np.array([[-0.4, -reach], [0.4, -reach], [0.4, reach], [-0.4, reach]])
    widget = window.scatter_canvas.get_tk_widget()
    points = window.scatter.axes.transData.transform(corners)
    for kind, (x, y) in zip(("ButtonPress-1", "Motion", "Motion", "ButtonRelease-1"), points, strict=True):
        at = {"x": round(x), "y": round(widget.winfo_height() - y)}
        widget.event_generate("<Motion>", **at) if "Release" in kind else None
        widget.event_generate(f"<{kind}>", **at)
    assert np.flatnonzero(session.selection).tolist() == rows.tolist()
    window._do(window._new_cluster)
    session.set_picked([0], False)
    window.save_button.invoke()
    assert "2 new outputs of this run: selected_my_thing, selected_selection" in window.status.cget("text")
    window.destroy()
    root.destroy()

    run = project.getProtocol(picked.getObjId())  # as the project on disk knows it
    assert places(run.selected_my_thing) == of_kinds(2, 6) and places(run.selected_selection) == of_kinds(7)
    assert {item.getGroupId() for item in run.selected_my_thing.iterCoordinates()} == {3}
    assert places(run.coordinates_cluster_01) == of_kinds(1)  # untouched
    names, _ = read_groups(run._getExtraPath("groups.csv"))
    assert names == {1: "cluster_01", 2: "cluster_02", 3: "my_thing", 4: "selection"}

    before = len(calls())
    run = again(project, launch, run, chosen=IN_WINDOW)
    assert [call[1:3] for call in calls()[before:] if call[0] == "cluster"] == [[run._getExtraPath("clusters"), "--selection"]]
    assert places(run.coordinates_my_thing) == of_kinds(2, 6) and places(run.coordinates_selection) == of_kinds(7)
    assert places(run.selected_my_thing) == of_kinds(2, 6)
    names, _ = read_groups(run._getExtraPath("groups.csv"))
    assert names == {1: "cluster_01", 2: "cluster_02", 3: "my_thing", 4: "selection"}
    # The window opens again with what was chosen.
    (view,) = viewer._visualize(run)
    assert [(e.name, e.picked) for e in view.clusters.session.entries] == [
        ("my_thing", True), ("selection", True), ("cluster_01", False),
    ]  # fmt: skip


def test_the_window_calls_the_engine_of_the_plugin(project: Any, picked: Any, calls: Any, tmp_path: Path) -> None:
    import subprocess

    (view,) = TwinClustersViewer(project=project)._visualize(project.getProtocol(picked.getObjId()))
    words = [*view.clusters.engine(), "cluster", view.clusters.folder, "--leftover", "--out", str(tmp_path / "out put")]
    words += view.clusters.engine_options()
    subprocess.run(words, check=True)
    assert calls()[-1] == words[words.index("cluster") :] and "--seed" in words and (tmp_path / "out put" / "clusters.json").exists()


def test_a_run_without_clusters_says_so(project: Any, embedded: Any) -> None:
    (message,) = TwinClustersViewer(project=project)._visualize(new_run(project, embedded))
    assert "no clusters yet" in message.getMessage()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"chosen": NAMED}, "name at least one"),
        ({"chosen": NAMED, "named": "a as b, c as b"}, "two of them are called b"),
        ({"chosen": NAMED, "named": "a, a+b as c"}, "a is both in a and in c"),
        ({"chosen": NAMED, "named": "a/b"}, "cannot be the name of a cluster"),
        ({"chosen": IN_WINDOW}, "nothing was chosen in the window yet"),
        ({"chosen": FROM_FILE}, "there is no file given"),
        ({"chosen": FROM_FILE, "selectionFile": __file__}, "is no selection of clusters"),
        ({"fewest": 2}, "at least 3"),
        ({"salience": 0.0}, "larger than 0"),
        ({"boxSize": -2}, "Box size"),
        ({"thresholdMode": 1, "threshold": 1.5}, "a similarity is a number from -1 to 1"),
        ({"zFirst": 3}, "give both the first and the last"),
        ({"gpuList": ""}, "GPU IDs is empty"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence_before_the_run(
    project: Any, embedded: Any, values: dict, sentence: str
) -> None:
    (error,) = new_run(project, embedded, **values).validate()
    assert sentence in error


# ------------------------------ words and files ------------------------------
def test_a_text_names_merges_and_renames() -> None:
    assert parse_clusters(" cluster_01,cluster_03 + cluster_05 as  ribosome\n\ncluster_07+cluster_08;") == [
        ("cluster_01", ("cluster_01",)),
        ("ribosome", ("cluster_03", "cluster_05")),
        ("cluster_07-cluster_08", ("cluster_07", "cluster_08")),
    ]


def test_a_selection_file_is_taken_for_the_candidates_it_was_made_of_and_no_others(picked: Any, tmp_path: Path) -> None:
    folder = picked._getExtraPath("clusters")
    other = shutil.copytree(folder, tmp_path / "other")
    entry = {"name": "a", "from": ["cluster_01"], "add": [12], "remove": []}
    (other / "s.json").write_text(json.dumps({"version": 1, "clusters": [entry]}))
    assert selection_of_file(str(other / "s.json"), folder) == [entry]
    table = other / "candidates.star"
    first, second = (f"  {number}  " for number in (12, 13))
    table.write_text(table.read_text().replace(first, "  x  ").replace(second, first).replace("  x  ", second))
    with pytest.raises(ValueError, match="was made of other candidates"):
        selection_of_file(str(other / "s.json"), folder)
    (tmp_path / "alone.json").write_text((other / "s.json").read_text())
    assert selection_of_file(str(tmp_path / "alone.json"), folder) == [entry]


def test_all_species_are_those_of_the_folder_in_their_order(picked: Any) -> None:
    chosen = selection_of(picked._getExtraPath("clusters"), None, None)
    assert [(entry["name"], entry["from"]) for entry in chosen] == [
        ("cluster_01", ["cluster_01"]), ("cluster_02", ["cluster_02"]),
    ]  # fmt: skip


def test_a_position_of_an_output_is_a_voxel_of_the_tomogram(picked: Any) -> None:
    output = picked.coordinates_cluster_01
    found = set()
    for item in output.iterCoordinates():
        item.setVolume(output.getPrecedents()[{"_tsId": item.getTomoId()}])
        found.add((item.getTomoId(), *np.round(item.getPosition(BOTTOM_LEFT_CORNER)).astype(int).tolist()))
    assert found == {("first", *xyz) for xyz in of_kinds(1)["first"]}
