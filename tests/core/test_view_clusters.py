"""`tomotwin view` of a folder of clusters: what is opened, what is saved, what is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tomotwin_core.cli.main import main
from tomotwin_core.tomogram import write_mrc
from tomotwin_view.cluster_files import read_selection
from tomotwin_view.star import write_tables

SHAPE = (6, 8, 10)
LABELS = [
    "rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ", "tomotwinId", "tomotwinCluster",
    "tomotwinProbability", "tomotwinUmapX", "tomotwinUmapY", "tomotwinDiameterAngst",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clusters of two candidates, in a tomogram that lies beside it."""
    write_mrc(tmp_path / "TS_1.mrc", np.random.default_rng(1).normal(size=SHAPE).astype(np.float32), 8.0)
    folder = tmp_path / "clusters"
    folder.mkdir()
    rows = [["TS_1", 3.0, 4.0, 5.0, i, f"cluster_0{1 + i // 2}", 1.0, float(i), 0.0, 100.0] for i in range(4)]
    write_tables(str(folder / "candidates.star"), {"particles": (LABELS, rows)})
    facts = {"file": str(tmp_path / "TS_1.mrc"), "voxel_size_A": 8.0, "shape": list(SHAPE)}
    clusters = [{"name": name, "kind": "species"} for name in ("cluster_01", "cluster_02")]
    content = {"version": 1, "tomograms": {"TS_1": facts}, "clusters": clusters, "verdict": "2 species."}
    (folder / "clusters.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def seen(screen: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The windows that open, each used once: the second cluster is discarded, and what is left saved."""
    from tomotwin_view.clusters_window import ClustersWindow

    seen = []

    def use(window: Any) -> None:
        window.root.update()
        shape = None if window.slices is None else window.session.tomograms[0].open().shape
        seen.append((window.session.names(), [entry.picked for entry in window.session.entries], shape))
        window.session.set_picked([window.session.names().index("cluster_02")], False)
        window.save_button.invoke()
        window.destroy()

    monkeypatch.setattr(ClustersWindow, "run", use)
    return seen


def test_the_window_opens_on_a_folder_of_clusters_and_its_selection_can_be_resumed(
    folder: Path, seen: list[Any]
) -> None:
    assert main(["view", str(folder)]) == 0
    assert seen == [(["cluster_01", "cluster_02"], [True, True], SHAPE)]
    first = [{"name": "cluster_01", "from": ["cluster_01"], "add": [], "remove": []}]
    assert read_selection(str(folder / "selection.json")) == first
    other = folder / "other.json"
    assert main(["view", str(folder), "--resume", str(folder / "selection.json"), "--out", str(other)]) == 0
    assert seen[1] == (["cluster_01", "cluster_02"], [True, False], SHAPE)
    assert read_selection(str(other)) == first


def test_a_tomogram_that_has_moved_is_given_after_the_folder_and_without_it_there_are_no_slices(
    folder: Path, seen: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "moved").mkdir()
    (tmp_path / "TS_1.mrc").rename(tmp_path / "moved" / "TS_1.mrc")
    assert main(["view", str(folder)]) == 0
    assert main(["view", str(folder), str(tmp_path / "moved" / "TS_1.mrc")]) == 0
    assert [shape for _, _, shape in seen] == [None, SHAPE]


def test_a_tomogram_of_another_size_is_not_taken_for_that_which_was_clustered(folder: Path, tmp_path: Path) -> None:
    from tomotwin_core.cli.view_clusters import _open, clusters_session

    write_mrc(tmp_path / "other" / "TS_1.mrc", np.zeros((3, 4, 5), np.float32), 8.0)
    given = {"TS_1": tmp_path / "other" / "TS_1.mrc"}
    session = clusters_session(folder, lambda name, file: _open(given, None, name, file), None)
    with pytest.raises(ValueError, match=r"it has \(3, 4, 5\) voxels"):
        session.tomograms[0].open()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["clusters", "--picks", "x.star"], "--picks, --candidates and --apply are for tomograms"),
        (["empty"], "empty is no folder of `tomotwin cluster`"),
        (["clusters", "clusters"], "give one such folder"),
        (["TS_1.mrc"], "give positions with --picks, or a folder"),
        (["clusters", "--resume", "gone.json"], "gone.json cannot be read (No such file"),
        (["clusters", "--resume", "wrong.json"], "is made of cluster_09, which is no cluster here"),
        (["clusters", "--resume", "clusters/clusters.json", "--out", "x"], "candidate"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("empty").mkdir()
    Path("wrong.json").write_text('{"clusters": [{"name": "a", "from": ["cluster_09"]}]}')
    if sentence == "candidate":
        Path("clusters/clusters.json").write_text(Path("clusters/clusters.json").read_text().replace('"TS_1":', '"TS_2":'))
    assert main(["view", *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_without_a_display_or_without_tk_one_sentence_names_the_way_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "tkinter", None)
    monkeypatch.delitem(sys.modules, "tomotwin_view.clusters_window", raising=False)
    assert main(["view", str(folder)]) == 2
    assert "the window needs Tk" in capsys.readouterr().err
    monkeypatch.undo()
    pytest.importorskip("tkinter", reason="this Python has no Tk")
    monkeypatch.delenv("DISPLAY", raising=False)
    assert main(["view", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "the window cannot be opened" in error and "selection.json" in error and error.count("\n") == 1
