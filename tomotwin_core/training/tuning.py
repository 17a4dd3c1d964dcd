"""Search for better settings: short trainings, judged by validation, with Optuna (Akiba et al., KDD 2019).

    OUT/study.db         the study (SQLite): settings and figures of every trial
    OUT/trial_0007/      the training of trial 7: its log, curves and models
    OUT/trials.csv       all trials as a table
    OUT/best.toml        the best settings, which `tomotwin train` takes

Several processes, on one machine or on several with a common folder, work on one study when they are given the same
folder. A trial whose validation lies below the median of the trials before is ended early. A trial that was interrupted,
or whose process died, is taken up again from its last checkpoint.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from tomotwin_core.errors import UserError
from tomotwin_core.files import atomic_path
from tomotwin_core.locks import alone_in
from tomotwin_core.model.network import NetworkSettings
from tomotwin_core.toml_settings import write_settings
from tomotwin_core.training.run import prepare
from tomotwin_core.training.settings import LOSSES, TrainingPlan
from tomotwin_core.training.trainer import FILES

SEARCHED = ("loss", "network", "rate", "batch", "augmentation")
# Looked at by others every so often; a trial silent for three times as long counts as dead.
_HEARTBEAT_S = 60
_MOST_TRIES = 3
_FIGURE = "mean_best_f1_seen"


class _Interrupted(Exception):
    """The process was told to stop in the middle of a trial."""


def tune(
    out: Path,
    plan: TrainingPlan,
    trials: int,
    steps: int,
    searched: Sequence[str] = SEARCHED,
    library: Path | None = None,
    device: str = "cpu",
) -> bool:
    """Go on with the study in `out` until it has `trials` finished ones; returns whether it has. Every trial trains for
    `steps` and is validated four times at least."""
    if not plan.validation.every:
        raise UserError("validation.every = 0: trials are judged by validation; give it a number of steps")
    unknown = set(searched) - set(SEARCHED)
    if unknown or not searched:
        raise UserError(f"--search {' '.join(sorted(unknown))}: choose among {', '.join(SEARCHED)}")
    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    short = replace(
        plan,
        training=replace(plan.training, steps=steps, warmup=min(plan.training.warmup, max(steps // 5, 1))),
        validation=replace(plan.validation, every=min(plan.validation.every, max(steps // 4, 1))),
    )
    study = open_study(out, plan.training.seed)

    def objective(trial: Trial) -> float:
        folder = out / f"trial_{_number(trial):04d}"
        tried = suggested(trial, short, searched)

        def report(step: int, figures: dict[str, float]) -> None:
            trial.report(figures[_FIGURE], step)
            if step < steps and trial.should_prune():
                raise optuna.TrialPruned

        with alone_in(folder, FILES):
            trainer = prepare(folder, tried, library, None, device, shared=out)
            finished = trainer.run(report)
        if not finished:
            take_up_again(study, trial)
            raise _Interrupted
        return float(trainer.best[_FIGURE])

    def finished() -> int:
        return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))

    while finished() < trials:
        try:
            study.optimize(objective, n_trials=1, catch=())
        except _Interrupted:
            return False
        _write(out, study, plan, searched)
    _write(out, study, plan, searched)
    return True


def open_study(out: Path, seed: int) -> optuna.Study:
    """The study in a folder, made if there is none."""
    warnings.filterwarnings("ignore", category=ExperimentalWarning)  # the heartbeat, since 2021
    storage = RDBStorage(
        f"sqlite:///{out / 'study.db'}",
        heartbeat_interval=_HEARTBEAT_S,
        grace_period=3 * _HEARTBEAT_S,
        heartbeat_stale_trial_callback=take_up_again,
        # Several processes write by turns.
        engine_kwargs={"connect_args": {"timeout": 60}},
    )
    study = optuna.create_study(
        study_name="tomotwin",
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    # Each process goes its own way from where the study is; others' running trials are taken into account.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), constant_liar=True)
    return study


def suggested(trial: Trial | optuna.trial.FixedTrial, plan: TrainingPlan, searched: Sequence[str]) -> TrainingPlan:
    """The plan with what the trial proposes for the parts that are searched."""
    choose, number = trial.suggest_categorical, trial.suggest_float
    if "loss" in searched:
        name = str(choose("loss", LOSSES))
        changed: dict[str, Any] = {"name": name, "miner": "auto", "margin": None, "scale": None}
        if name == "supcon":
            changed["temperature"] = number("temperature", 0.03, 0.3, log=True)
        elif name == "triplet":
            changed |= {
                "margin": number("triplet_margin", 0.1, 0.8),
                "miner": choose("miner", ("semihard", "hard", "all")),
            }
            changed["miner_margin"] = number("miner_margin", 0.1, 0.8)
        elif name == "multisimilarity":
            changed |= {"scale": number("beta", 20, 80), "miner": choose("ms_miner", ("none", "multisimilarity"))}
            changed["miner_margin"] = number("epsilon", 0.05, 0.8)
        else:
            low, high = {"proxy-anchor": (16, 64), "circle": (40, 256)}[name]
            changed |= {
                "margin": number(f"{name}_margin", 0.05, 0.5),
                "scale": number(f"{name}_scale", low, high, log=True),
            }
        if name != "proxy-anchor":
            changed["balance"] = choose("balance", (0.0, 0.5, 1.0))
        plan = replace(plan, loss=replace(plan.loss, **changed))
    if "network" in searched:
        factor = float(choose("width", (0.75, 1.0, 1.25, 1.5)))
        default = NetworkSettings()
        widths = tuple(round(w * factor / 8) * 8 for w in default.widths)
        network = replace(
            plan.network,
            widths=widths,  # type: ignore[arg-type]
            head=int(choose("head", (128, 192, 256))),
            embedding_size=int(choose("embedding_size", (16, 32, 64))),
        )
        plan = replace(plan, network=network)
    if "rate" in searched:
        rate = number("learning_rate", 1e-4, 5e-3, log=True)
        decay = number("weight_decay", 1e-6, 1e-2, log=True)
        plan = replace(plan, training=replace(plan.training, learning_rate=rate, weight_decay=decay))
    if "batch" in searched:
        batch = replace(
            plan.batch,
            instances=int(choose("instances", (0, 4, 8, 16))),
            anywhere=int(choose("anywhere", (20, 60, 120))),
            beside=int(choose("beside", (20, 60, 120))),
        )
        plan = replace(plan, batch=batch)
        if not plan.data.given or plan.data.live_share:
            plan = replace(plan, stream=replace(plan.stream, species=int(choose("species", (16, 28, 40)))))
    if "augmentation" in searched:
        augmentation = replace(
            plan.augmentation,
            noise=number("noise", 0, 1),
            noise_sigma=number("noise_sigma", 0.05, 0.6),
            dropout=number("dropout", 0, 0.5),
        )
        plan = replace(plan, augmentation=augmentation)
    return plan


def take_up_again(study: optuna.Study, trial: Trial | FrozenTrial) -> None:
    """Put a trial that was not brought to its end back in the queue, to go on in its folder; three times at most, lest
    one that ends its process each time keeps all busy."""
    tries = int(trial.user_attrs.get("tries", 0)) + 1
    if tries <= _MOST_TRIES:
        study.enqueue_trial(trial.params, user_attrs={"continues": _number(trial), "tries": tries})


def _number(trial: Trial | FrozenTrial) -> int:
    """Of the trial, or of the one that it takes up again, whose folder it goes on in."""
    return int(trial.user_attrs.get("continues", trial.number))


def _write(out: Path, study: optuna.Study, plan: TrainingPlan, searched: Sequence[str]) -> None:
    """trials.csv and, once a trial is complete, best.toml: the plan as it was given with what the best trial changed."""
    done = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    names = sorted({name for t in done for name in t.params})
    with atomic_path(out / "trials.csv") as temporary, temporary.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, ["trial", "state", "steps", _FIGURE, *names])
        writer.writeheader()
        for t in done:
            value = t.value if t.value is not None else t.intermediate_values.get(t.last_step or 0, "")
            row = {"trial": t.number, "state": t.state.name.lower(), "steps": t.last_step, _FIGURE: value}
            writer.writerow({**row, **t.params})
    if any(t.state == TrialState.COMPLETE for t in done):
        best = study.best_trial
        print(f"best of {len(done)} trials: {best.value:.3f} (trial {best.number})", flush=True)
        chosen = suggested(optuna.trial.FixedTrial(best.params), plan, searched)
        heading = f"Best of {len(done)} trials of `tomotwin tune`: trial {best.number}, {_FIGURE} {best.value:.4f}."
        write_settings(out / "best.toml", chosen, heading)
