"""Accepted and rejected picks turn a reference towards the one and away from the other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import FieldMaker
from test_discovery import calibration
from test_picking import embeddings_with, unit

from tomotwin_core.cli.main import main
from tomotwin_core.coordinates import ACCEPTED, REJECTED, UNDECIDED, Coordinates, read_coordinates, write_coordinates
from tomotwin_core.embedding import EmbeddingField
from tomotwin_core.errors import UserError
from tomotwin_core.picking import ReferenceSet, Target, load_references, locate
from tomotwin_core.picking.refining import corrections, refined

RIGHT = [(5, 5, 5), (5, 15, 5), (5, 5, 15), (5, 15, 15), (13, 5, 5), (13, 15, 5), (13, 5, 15), (13, 15, 15)]
WRONG = [(9, 10, 5), (9, 5, 10), (9, 15, 10), (9, 10, 15), (17, 10, 10)]


def two_alike(make_field: FieldMaker) -> tuple[EmbeddingField, ReferenceSet]:
    """A field with a target and its look-alike, and a reference that lies half-way between the two."""
    right, wrong = unit(1), 0.7 * unit(1) + 0.71 * unit(2)
    planted = [(p, right, 1.0) for p in RIGHT] + [(p, wrong / np.linalg.norm(wrong), 1.0) for p in WRONG]
    field = make_field(embeddings_with((22, 20, 20), planted))
    between = right + wrong / np.linalg.norm(wrong)
    prototype = (between / np.linalg.norm(between))[None].astype(np.float32)
    return field, ReferenceSet((Target("a", prototype, 60.0, calibration=calibration()),), "hash")


def table(field: EmbeddingField, places: list[tuple[int, int, int]], accepted: list[int] | None = None) -> Coordinates:
    xyz = np.array(places)[:, ::-1] * 2.0
    return Coordinates.from_arrays(
        xyz, 10.0, field.tomogram, field.tomogram_shape, "a", diameter_A=60.0, accepted=accepted
    )


def scores_at(references: ReferenceSet, field: EmbeddingField, places: list[tuple[int, int, int]]) -> np.ndarray:
    return references.similarity(field.embeddings(0, 22))[tuple(np.transpose(places))][:, 0]


def test_a_look_alike_falls_behind_after_a_few_decisions(make_field: FieldMaker) -> None:
    field, references = two_alike(make_field)
    before = scores_at(references, field, RIGHT[4:]).min() - scores_at(references, field, WRONG[3:]).max()
    decided = table(field, RIGHT[:4] + WRONG[:3], [ACCEPTED] * 4 + [REJECTED] * 3)
    after = refined(references, [(field, decided)])
    gained = scores_at(after, field, RIGHT[4:]).min() - scores_at(after, field, WRONG[3:]).max()
    assert before < 0.02 and gained > 0.12, "those that nobody decided on are told apart"
    np.testing.assert_allclose(np.linalg.norm(after.targets[0].prototypes, axis=1), 1.0, atol=1e-5)
    assert (np.asarray(references.targets[0].prototypes) != after.targets[0].prototypes).any()


def test_a_strong_prior_holds_the_old_reference_and_other_targets_stay(make_field: FieldMaker) -> None:
    field, references = two_alike(make_field)
    other = Target("b", unit(5)[None], 60.0)
    both = replace(references, targets=(*references.targets, other))
    decided = table(field, RIGHT[:2], [ACCEPTED] * 2)
    loose, held = (refined(both, [(field, decided)], prior) for prior in (1.0, 500.0))
    old = references.targets[0].prototypes[0]
    assert float(held.targets[0].prototypes[0] @ old) > 0.999 > float(loose.targets[0].prototypes[0] @ old)
    assert held.targets[1] is other


def test_undecided_picks_have_no_say(make_field: FieldMaker) -> None:
    field, references = two_alike(make_field)
    some = table(field, RIGHT[:2] + WRONG, [ACCEPTED] * 2 + [UNDECIDED] * len(WRONG))
    alone = table(field, RIGHT[:2], [ACCEPTED] * 2)
    np.testing.assert_allclose(
        refined(references, [(field, some)]).targets[0].prototypes,
        refined(references, [(field, alone)]).targets[0].prototypes,
    )


def test_the_scale_of_the_rates_follows_the_scores(make_field: FieldMaker) -> None:
    field, references = two_alike(make_field)
    # Nothing was wrong with the old reference: rates hardly change.
    same = refined(references, [(field, table(field, RIGHT[:2], [ACCEPTED] * 2))], prior=900.0)
    was, now = references.targets[0].calibration, same.targets[0].calibration
    assert was is not None and now is not None
    scores = np.linspace(0.1, 0.95, 40)
    assert np.abs(was.probabilities(scores) - now.probabilities(scores)).max() < 0.2
    peaks = locate(field, same)
    assert peaks.fdr is not None and np.isfinite(peaks.fdr).all()


def test_a_corrected_set_says_what_was_right_and_what_was_not(make_field: FieldMaker) -> None:
    field, _ = two_alike(make_field)
    picks, kept = table(field, RIGHT[:3] + WRONG[:2]), table(field, [*RIGHT[:3], RIGHT[7]])
    moved = replace(kept, xyz=kept.xyz + 0.5)
    said = corrections(picks, moved)
    assert said.accepted is not None
    np.testing.assert_allclose(said.xyz[said.accepted == ACCEPTED], moved.xyz)
    np.testing.assert_allclose(said.xyz[said.accepted == REJECTED], table(field, WRONG[:2]).xyz)


def test_decisions_that_cannot_serve_are_told(make_field: FieldMaker) -> None:
    field, references = two_alike(make_field)
    for wrong, words in (
        (table(field, RIGHT[:2]), "nothing of accepted"),
        (table(field, RIGHT[:2], [UNDECIDED] * 2), "no pick was"),
        (replace(table(field, RIGHT[:1], [1]), label=np.array(["z"])), "none of the references"),
        (table(field, [(30, 5, 5)], [1]), "outside"),
    ):
        with pytest.raises(UserError, match=words):
            refined(references, [(field, wrong)])


def test_the_command_takes_decisions_in_all_forms_and_writes_new_peaks(
    make_field: FieldMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field, references = two_alike(make_field)
    references.save(tmp_path / "refs.safetensors")
    write_coordinates(tmp_path / "a.star", table(field, RIGHT[:4]))
    write_coordinates(tmp_path / "r.star", table(field, WRONG[:3]))
    write_coordinates(tmp_path / "d.star", table(field, RIGHT[:4] + WRONG[:3], [1] * 4 + [0] * 3))
    write_coordinates(tmp_path / "p.star", table(field, RIGHT[:4] + WRONG[:3]))
    refine = ["refine", str(field.path), "--references", str(tmp_path / "refs.safetensors"), "--out"]
    prototypes = []
    for name, decided in (
        ("one", ["--accepted", "a.star", "--rejected", "r.star"]),
        ("two", ["--decided", "d.star"]),
        ("three", ["--picks", "p.star", "--corrected", "a.star"]),
    ):
        files = [str(tmp_path / w) if w.endswith(".star") else w for w in decided]
        out = tmp_path / f"{name}.safetensors"
        assert main([*refine, str(out), *files, "--peaks", str(tmp_path / name)]) == 0
        assert "4 accepted and 3 rejected" in capsys.readouterr().out
        prototypes.append(load_references(out).targets[0].prototypes)
        peaks = read_coordinates(tmp_path / name / "tomo_peaks.star")
        assert {tuple(p) for p in np.round(peaks.xyz[:8] / 2).astype(int)[:, ::-1]} == set(RIGHT)
    np.testing.assert_allclose(prototypes[0], prototypes[1], atol=1e-5)
    np.testing.assert_allclose(prototypes[0], prototypes[2], atol=1e-5)
    for wrong in (["--decided", str(tmp_path / "a.star")], ["--picks", str(tmp_path / "p.star")], []):
        assert main([*refine, str(tmp_path / "x.safetensors"), *wrong]) == 2
    assert not (tmp_path / "x.safetensors").exists()


def test_the_decisions_that_the_picking_window_saves_are_taken_not_the_picks_beside_them(
    make_field: FieldMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    field, references = two_alike(make_field)
    references.save(tmp_path / "refs.safetensors")
    write_coordinates(tmp_path / "d.star", table(field, RIGHT[:4] + WRONG[:3], [1] * 4 + [0] * 3))
    write_coordinates(tmp_path / "p.star", table(field, RIGHT))
    decisions = (tmp_path / "d.star").read_text().split("data_particles")[1]
    (tmp_path / "session.star").write_text((tmp_path / "p.star").read_text() + "data_tomotwin_decisions" + decisions)
    command = ["refine", str(field.path), "--references", str(tmp_path / "refs.safetensors")]
    command += ["--out", str(tmp_path / "new.safetensors"), "--decided", str(tmp_path / "session.star")]
    assert main(command) == 0
    assert "4 accepted and 3 rejected" in capsys.readouterr().out
