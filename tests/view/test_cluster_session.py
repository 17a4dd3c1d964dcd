"""What is decided in the window on clusters, and its files, without a window."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from planted_clusters import KINDS, nowhere, opener, write_folder

from tomotwin_view.cluster_files import read_clusters, read_selection, write_selection
from tomotwin_view.cluster_session import ClustersSession, checked_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "clusters")


@pytest.fixture
def session(folder: Path) -> ClustersSession:
    return read_clusters(str(folder), opener)


def members(folder: Path, cluster: int) -> list[int]:
    """Ids of the members of a planted cluster, in order."""
    return sorted(json.loads((folder / "clusters.json").read_text())["clusters"][cluster]["members"])


def ids(session: ClustersSession, rows: np.ndarray) -> list[int]:
    return sorted(session.candidates.ids[rows].tolist())


def select(session: ClustersSession, numbers: list[int]) -> None:
    session.select(np.isin(session.candidates.ids, numbers))


def test_a_session_begins_with_the_proposals_and_picks_the_species(session: ClustersSession, folder: Path) -> None:
    assert session.names() == ["cluster_01", "cluster_02", "cluster_03"]
    assert [entry.picked for entry in session.entries] == [True, True, False]
    assert [ids(session, session.members(number)) for number in range(3)] == [members(folder, i) for i in range(3)]
    assert session.counts().tolist() == [[6, 12], [4, 8], [5, 10]]
    assert [tomogram.name for tomogram in session.tomograms] == ["TS_a", "TS_b"] and session.has_voxels
    assert session.chosen() == [
        {"name": "cluster_01", "from": ["cluster_01"], "add": [], "remove": []},
        {"name": "cluster_02", "from": ["cluster_02"], "add": [], "remove": []},
    ]


def test_merged_and_named_clusters_are_saved_by_what_they_come_from(session: ClustersSession) -> None:
    session.merge([2, 0])
    session.rename(0, "  big  thing ")
    session.set_picked([1], False)
    assert session.chosen() == [{"name": "big_thing", "from": ["cluster_01", "cluster_03"], "add": [], "remove": []}]
    assert session.counts()[:, 1].tolist() == [22, 8]
    session.undo()
    session.undo()
    session.undo()
    assert session.names() == ["cluster_01", "cluster_02", "cluster_03"]
    assert session.counts()[:, 1].tolist() == [12, 8, 10]


def test_a_selection_becomes_a_cluster_and_leaves_those_it_was_in(session: ClustersSession, folder: Path) -> None:
    taken = members(folder, 0)[:3] + members(folder, 2)[:1]
    select(session, taken)
    session.new_entry("mine")
    assert session.at_hand == 3
    first, second, mine = session.chosen()
    assert first == {"name": "cluster_01", "from": ["cluster_01"], "add": [], "remove": taken[:3]}
    assert second["remove"] == []
    assert mine == {"name": "mine", "from": [], "add": sorted(taken), "remove": []}


def test_single_candidates_are_added_taken_out_and_put_back(session: ClustersSession, folder: Path) -> None:
    one, other = members(folder, 0)[0], members(folder, 1)[0]
    select(session, [one])
    session.add_selection(1)
    row = int(np.flatnonzero(session.candidates.ids == other)[0])
    session.toggle(row)
    first, second = session.chosen()
    assert (first["remove"], second["add"], second["remove"]) == ([one], [one], [other])
    session.toggle(row)  # back to where it was proposed
    select(session, [one])
    session.take_out_selection()
    first, second = session.chosen()
    assert (first["remove"], second["add"], second["remove"]) == ([one], [], [])


def test_what_was_saved_is_taken_up_with_names_members_and_what_is_picked(session: ClustersSession, folder: Path) -> None:
    select(session, members(folder, 0)[:4])
    session.new_entry("mine")
    session.merge([0, 2])
    session.rename(0, "merged")
    session.set_picked([1], False)
    path = str(folder / "selection.json")
    write_selection(path, session.chosen())
    assert json.loads(Path(path).read_text())["version"] == 1

    again = read_clusters(str(folder), opener)
    again.restore(read_selection(path))
    assert again.chosen() == session.chosen()
    assert {entry.name: entry.picked for entry in again.entries} == {"merged": True, "mine": True, "cluster_02": False}
    named = [np.array(s.names() + ["none"])[s.label].tolist() for s in (session, again)]
    assert named[0] == named[1]
    again.undo()
    assert again.names() == ["cluster_01", "cluster_02", "cluster_03"]


@pytest.mark.parametrize(
    ("clusters", "sentence"),
    [
        ([{"name": "a", "from": ["cluster_09"]}], "a is made of cluster_09, which is no cluster here"),
        ([{"name": "a", "add": [5]}], "candidate 5, which is not here"),
        ([{"name": "a", "from": ["cluster_01"]}, {"name": "a", "from": ["cluster_02"]}], "a is there twice"),
        ([{"name": "a", "from": ["cluster_01"]}, {"name": "b", "from": ["cluster_01"]}], "b shares candidates with a"),
    ],
)
def test_a_selection_that_does_not_fit_is_refused_and_changes_nothing(
    session: ClustersSession, tmp_path: Path, clusters: list, sentence: str
) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"version": 1, "clusters": clusters}))
    before = session.chosen()
    with pytest.raises(ValueError, match=sentence):
        session.restore(read_selection(str(tmp_path / "s.json")))
    assert session.chosen() == before and not session.changed


@pytest.mark.parametrize("text", ["", "{}", '{"clusters": 3}', '{"clusters": [{"from": []}]}', '{"clusters": [{"name": "a b/c"}]}'])
def test_another_file_is_no_selection(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match=r"s.json is no selection of clusters"):
        read_selection(str(tmp_path / "s.json"))


def test_a_selection_without_clusters_is_not_written(session: ClustersSession, tmp_path: Path) -> None:
    session.set_picked([0, 1], False)
    with pytest.raises(ValueError, match="No cluster is marked"):
        write_selection(str(tmp_path / "s.json"), session.chosen())
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("name", ["", "none", "a/b", "é", "-x", "a+b", "a,b"])
def test_a_name_that_cannot_be_one_of_files_is_refused(session: ClustersSession, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a cluster"):
        session.rename(0, name)
    assert checked_name("60S subunit.2") == "60S_subunit.2"
    with pytest.raises(ValueError, match="is the name of another cluster"):
        session.rename(0, "cluster_02")
    assert session.names()[0] == "cluster_01"


def test_clusters_found_again_among_some_candidates_are_found_by_their_place(
    session: ClustersSession, folder: Path, tmp_path: Path
) -> None:
    """The second clustering has ids of its own."""
    again_folder = write_folder(tmp_path / "again")
    text = (again_folder / "clusters.json").read_text()
    (again_folder / "clusters.json").write_text(text.replace('"kind": "membrane"', '"kind": "species"'))
    again = read_clusters(str(again_folder), opener)
    again.candidates.ids[:] = np.arange(len(again.candidates.ids))
    again.set_picked([1], False)
    assert session.take_over(again) == 2
    assert session.names() == ["cluster_01", "cluster_02", "cluster_03", "cluster_01_2", "cluster_03_2"]
    assert ids(session, session.members(3)) == members(folder, 0) and ids(session, session.members(4)) == members(folder, 2)
    assert [entry["name"] for entry in session.chosen()] == ["cluster_02", "cluster_01_2", "cluster_03_2"]


def test_steps_go_through_the_selection_across_tomograms_and_keep_it(session: ClustersSession, folder: Path) -> None:
    select(session, members(folder, 1))
    seen = []
    for _ in range(8):
        session.step(True)
        row = session.focus
        assert row is not None and session.current == session.tomogram[row]
        np.testing.assert_array_equal(session.cursor, np.rint(session.xyz[row]))
        seen.append(int(session.candidates.ids[row]))
    assert sorted(seen) == members(folder, 1) and session.selection.sum() == 8
    assert session.tomogram[session.candidates.ids == seen[0]] == 0


def test_slices_circle_what_is_picked_at_hand_or_selected_and_on_demand_all(session: ClustersSession, folder: Path) -> None:
    here = session.tomogram == 0
    species = np.isin(session.candidates.ids, members(folder, 0) + members(folder, 1))
    assert (session.visible() == here & species).all()
    session.look_at(2)
    assert (session.visible() == here & (session.label >= 0)).all()
    session.select(session.label < 0)
    assert (session.visible() == here).all()
    session.select(np.array([], dtype=int))
    session.set_view(show_left_out=True)
    assert (session.visible() == here).all()


def test_a_folder_without_tomograms_is_read_and_says_what_is_missing(folder: Path) -> None:
    session = read_clusters(str(folder), nowhere)
    assert not session.has_voxels and len(session.label) == 36
    with pytest.raises(FileNotFoundError, match="not there any more"):
        session.tomograms[0].open()


def test_nothing_found_is_a_session_with_a_verdict(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "empty", (0, 0, 0, 0))
    content = json.loads((folder / "clusters.json").read_text())
    (folder / "clusters.json").write_text(json.dumps({**content, "clusters": [], "verdict": "There is nothing here."}))
    session = read_clusters(str(folder), opener)
    assert (session.entries, session.verdict, session.chosen()) == ([], "There is nothing here.", [])
    session.step(True)
    session.show_selection()


@pytest.mark.parametrize("damage", ["clusters", "json", "column", "name"])
def test_a_folder_that_is_damaged_is_refused_in_one_sentence(folder: Path, damage: str) -> None:
    clusters, table = folder / "clusters.json", folder / "candidates.star"
    if damage == "clusters":
        clusters.write_text("[]")
    elif damage == "json":
        clusters.write_text(clusters.read_text()[:50])
    elif damage == "column":
        table.write_text(table.read_text().replace("tomotwinUmapX", "tomotwinX"))
    else:
        table.write_text(table.read_text().replace("cluster_02", "cluster_09"))
    with pytest.raises(ValueError, match=r"(clusters.json|candidates.star) .*tomotwin cluster"):
        read_clusters(str(folder), opener)


def test_the_planted_folder_is_what_the_tests_take_it_for(session: ClustersSession) -> None:
    assert sorted(set(session.candidates.proposal)) == [-1, 0, 1, 2] and len(KINDS) == 4
    assert (np.diff(session.candidates.ids) != 1).any()
