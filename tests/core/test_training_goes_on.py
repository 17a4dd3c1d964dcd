"""A training that was broken off goes on with the very pairs that it would have seen, wherever they come from."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from test_training import PLAN, STREAM, library, with_steps  # noqa: F401

from tomotwin_core.simulation.molecules import Molecules
from tomotwin_core.structures.library import DensityLibrary
from tomotwin_core.training.settings import TrainingPlan
from tomotwin_core.training.sources import LiveSource, MixedSource, Pair, in_use
from tomotwin_core.training.stream import MiniTomogram, MiniTomogramStream
from tomotwin_core.training.trainer import Trainer

INVENTING = replace(STREAM, invented=0.5)


def plan_with(workers: int, steps: int = 4) -> TrainingPlan:
    return replace(with_steps(PLAN, steps=steps, checkpoint_every=1, reuse=2, buffer=3, workers=workers), stream=INVENTING)


def same(one: Pair, other: Pair) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for a, b in zip(one, other, strict=True) for n in ("volume", "xyz", "label"))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_live_stream_goes_on_at_any_step_with_the_pairs_of_a_run_that_was_not_stopped(
    library: DensityLibrary,  # noqa: F811
    workers: int,
) -> None:
    source = LiveSource(library, plan_with(workers))
    whole = list(islice(source.pairs(0, 0), 9))
    for step in (1, 4, 7) if workers == 0 else (4,):
        again = list(islice(source.pairs(step, 0), 9 - step))
        assert all(same(a, b) for a, b in zip(again, whole[step:], strict=True))
    assert not same(next(source.pairs(0, 1)), whole[0]), "another process sees others"


@pytest.fixture(scope="module")
def at_once(library: DensityLibrary, tmp_path_factory: pytest.TempPathFactory) -> Trainer:  # noqa: F811
    trainer = Trainer(tmp_path_factory.mktemp("once"), plan_with(0), LiveSource(library, plan_with(0)))
    assert trainer.run()
    return trainer


@pytest.mark.parametrize("stopped_after", [1, 3])
def test_a_run_on_the_live_stream_that_was_stopped_gives_the_weights_of_one_that_was_not(
    library: DensityLibrary,  # noqa: F811
    at_once: Trainer,
    tmp_path: Path,
    stopped_after: int,
) -> None:
    Trainer(tmp_path / "parts", plan_with(0, stopped_after), LiveSource(library, plan_with(0))).run()
    resumed = Trainer(tmp_path / "parts", plan_with(0), LiveSource(library, plan_with(0)))
    assert resumed.step == stopped_after and resumed.run()
    for (name, a), b in zip(at_once.average.module.state_dict().items(), resumed.average.module.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(("reuse", "buffer"), [(1, 1), (3, 12), (2, 1), (4, 2)])
def test_every_pair_is_used_as_often_as_asked_and_not_long_after_it_was_made(reuse: int, buffer: int) -> None:
    order = list(islice(in_use(reuse, buffer, np.random.default_rng(0)), 3000))
    uses = Counter(order)
    assert all(uses[number] == reuse for number in range(max(order) - 20 * buffer))
    assert list(dict.fromkeys(order)) != sorted(set(order)) or buffer < 3
    newest = np.maximum.accumulate(order)
    assert (newest - order < 30 * buffer).all()


def test_mixed_sources_go_on_where_each_of_them_was() -> None:
    class Counting:
        def __init__(self, name: str) -> None:
            self.species = [name]

        def pairs(self, step: int, rank: int) -> Iterator[Pair]:
            while True:
                piece = MiniTomogram(np.zeros((1, 1, 1), np.float32), np.full((1, 3), step), np.zeros(1, int), np.zeros(1))
                yield piece, piece
                step += 1

    mixed = MixedSource(Counting("a"), Counting("b"), 0.4, seed=0)
    seen = [(p[0].label[0], p[0].xyz[0, 0]) for p in islice(mixed.pairs(0, 0), 60)]
    for step in (1, 17, 40):
        assert [(p[0].label[0], p[0].xyz[0, 0]) for p in islice(mixed.pairs(step, 0), 60 - step)] == seen[step:]


def test_a_pair_is_the_same_whatever_was_made_before_it(library: DensityLibrary) -> None:  # noqa: F811
    many, few = (MiniTomogramStream(library, library.ids(), INVENTING, lanes=2) for _ in range(2))
    made = [many[number] for number in (0, 1, 2, 5, 3)]
    assert same(few[3], made[4]) and same(few[0], made[0]) and same(few[5], made[3])


def test_kept_copies_do_not_depend_on_what_was_asked_for_before(library: DensityLibrary) -> None:  # noqa: F811
    densities = {i: library.density(i) for i in library.ids()[:2]}
    one, other = (Molecules(densities, 10.0, 3, seed=5) for _ in range(2))
    for _ in range(7):
        one.copy(library.ids()[0], np.random.default_rng())
    a, b = (m.copy(library.ids()[0], np.random.default_rng(1)) for m in (one, other))
    np.testing.assert_array_equal(a.values, b.values)
    other.series = 1
    assert not np.allclose(other.copy(library.ids()[0], np.random.default_rng(1)).rotation, b.rotation)
