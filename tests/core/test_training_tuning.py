"""The search for settings: it finds what is best, goes on where it stopped, ends the hopeless, shares its work."""

import csv
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from tomotwin_core.cli.main import main
from tomotwin_core.errors import UserError
from tomotwin_core.toml_settings import read_settings
from tomotwin_core.training import tuning
from tomotwin_core.training.settings import DataSettings, TrainingPlan, TrainingSettings
from tomotwin_core.training.tuning import SEARCHED, open_study, suggested, tune

PLAN = TrainingPlan(TrainingSettings(steps=1000, seed=3))
Report = Callable[[int, dict[str, float]], None]


class StandIn:
    """A training whose figure is best at a learning rate of 0.001 and grows with the steps."""

    made: list[tuple[Path, TrainingPlan]] = []
    stop_at = -1

    def __init__(self, folder: Path, plan: TrainingPlan, *rest: Any, shared: Path) -> None:
        self.plan, self.best = plan, {}
        StandIn.made.append((folder, plan))

    def run(self, report: Report) -> bool:
        rate, steps = self.plan.training.learning_rate, self.plan.training.steps
        for step in range(self.plan.validation.every, steps + 1, self.plan.validation.every):
            if len(StandIn.made) == StandIn.stop_at:
                return False
            value = step / steps * min(rate / 1e-3, 1e-3 / rate)
            self.best = {"mean_best_f1_seen": max(value, self.best.get("mean_best_f1_seen", 0.0))}
            report(step, {"mean_best_f1_seen": value, "median_f1_unseen": 0.0})
        return True


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    StandIn.made, StandIn.stop_at = [], -1
    monkeypatch.setattr(tuning, "prepare", StandIn)


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "trials.csv", newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_best_settings_are_found_and_written_as_train_takes_them(tmp_path: Path) -> None:
    assert tune(tmp_path, PLAN, trials=16, steps=40, searched=["rate"])
    best = read_settings(tmp_path / "best.toml", TrainingPlan())
    assert 4e-4 < best.training.learning_rate < 2.5e-3
    assert best.training.steps == 1000 and best.validation == PLAN.validation, "a trial's length is no result"
    rate, decay = best.training.learning_rate, best.training.weight_decay
    assert best == replace(PLAN, training=replace(PLAN.training, learning_rate=rate, weight_decay=decay))
    tried = StandIn.made[0][1]
    assert tried.training.steps == 40 and tried.validation.every == 10 and tried.training.warmup == 8
    found = rows(tmp_path)
    assert len(found) == 16 and float(max(r["mean_best_f1_seen"] for r in found)) > 0.4
    pruned = [r for r in found if r["state"] == "pruned"]
    assert pruned and all(int(r["steps"]) < 40 for r in pruned), "hopeless trials end early"


def test_a_study_goes_on_where_it_stopped_also_in_another_process(tmp_path: Path) -> None:
    tune(tmp_path, PLAN, trials=2, steps=40, searched=["rate"])
    tune(tmp_path, PLAN, trials=3, steps=40, searched=["rate"])
    assert [folder.name for folder, _ in StandIn.made] == ["trial_0000", "trial_0001", "trial_0002"]
    rates = {plan.training.learning_rate for _, plan in StandIn.made}
    assert len(rates) == 3, "no two are the same"
    tune(tmp_path, PLAN, trials=3, steps=40, searched=["rate"])
    assert len(StandIn.made) == 3, "nothing left to do"


def test_an_interrupted_trial_is_taken_up_again_in_its_folder(tmp_path: Path) -> None:
    StandIn.stop_at = 2
    assert not tune(tmp_path, PLAN, trials=3, steps=40, searched=["rate"])
    StandIn.stop_at = -1
    assert tune(tmp_path, PLAN, trials=3, steps=40, searched=["rate"])
    folders = [folder.name for folder, _ in StandIn.made]
    assert folders[:3] == ["trial_0000", "trial_0001", "trial_0001"] and len(folders) == 4
    assert StandIn.made[1][1] == StandIn.made[2][1], "with the same settings"
    assert [r["state"] for r in rows(tmp_path)] == ["complete", "fail", "complete", "complete"]


def test_a_trial_whose_process_died_is_taken_up_again_in_its_folder(tmp_path: Path) -> None:
    study = open_study(tmp_path, 0)
    dead = study.ask()
    dead.suggest_float("learning_rate", 1e-4, 5e-3, log=True)
    storage = study._storage._backend  # type: ignore[attr-defined]
    storage.record_heartbeat(dead._trial_id)
    optuna.storages.fail_stale_trials(study)
    assert study.trials[0].state == optuna.trial.TrialState.RUNNING, "not silent for long enough"
    storage.grace_period = 1
    time.sleep(2.1)
    optuna.storages.fail_stale_trials(study)
    assert study.trials[0].state == optuna.trial.TrialState.FAIL
    again = study.ask()
    assert again.number == 1 and tuning._number(again) == 0
    assert again.suggest_float("learning_rate", 1e-4, 5e-3, log=True) == dead.params["learning_rate"]
    for _ in range(3):
        tuning.take_up_again(study, again)
        again = study.ask()
    assert "continues" not in again.user_attrs, "three times at most"


def test_every_proposal_is_a_plan_that_training_takes() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    names, plans = set(), []
    for _ in range(40):
        trial = study.ask()
        plans.append(suggested(trial, PLAN, SEARCHED))
        assert suggested(optuna.trial.FixedTrial(trial.params), PLAN, SEARCHED) == plans[-1]
        names.add(plans[-1].loss.name)
    assert names == {"supcon", "triplet", "multisimilarity", "proxy-anchor", "circle"}
    assert {p.network.embedding_size for p in plans} == {16, 32, 64} and len({p.network.widths for p in plans}) == 4
    assert len({p.stream.species for p in plans}) == 3
    on_disk = suggested(study.ask(), replace(PLAN, data=DataSettings(folders=("x",))), SEARCHED)
    assert on_disk.stream == PLAN.stream, "species per step are the stream's"
    only = suggested(study.ask(), PLAN, ["batch"])
    assert replace(only, batch=PLAN.batch, stream=PLAN.stream) == PLAN


def test_the_command_tells_what_it_cannot_do_and_where_the_result_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["tune", "--out", str(tmp_path / "study"), "--device", "cpu"]
    assert main([*out, "--trials", "2", "--trial-steps", "8", "--search", "rate", "--set", "training.seed=5"]) == 0
    assert capsys.readouterr().out.strip().endswith("best.toml")
    assert read_settings(tmp_path / "study" / "best.toml", TrainingPlan()).training.seed == 5
    for wrong in (["--trials", "0"], ["--search", "luck"], ["--set", "validation.every=0"]):
        assert main([*out, *wrong]) == 2
    assert "choose among loss, network" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"validation\.every"):
        tune(tmp_path, replace(PLAN, validation=replace(PLAN.validation, every=0)), 1, 1)
