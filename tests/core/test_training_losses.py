"""Losses: copies are pulled together, backgrounds pushed away from all; weights of species; the paper's triplets."""

import numpy as np
import pytest
import torch

from tomotwin_core.errors import UserError
from tomotwin_core.training.batches import BACKGROUND
from tomotwin_core.training.losses import BalancedReducer, MetricLoss
from tomotwin_core.training.schedule import Schedule
from tomotwin_core.training.settings import (
    LOSSES,
    AugmentationSettings,
    LossSettings,
    TrainingSettings,
    paper_recipe,
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


LABEL = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3, 3] + [BACKGROUND] * 6)


@pytest.mark.parametrize("balance", [0.0, 1.0])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_falls_as_copies_come_together_and_backgrounds_go_away(name: str, balance: float) -> None:
    torch.manual_seed(0)
    loss = MetricLoss(LossSettings(name, balance=balance), 4, 32)
    if name == "proxy-anchor":
        species = torch.nn.functional.normalize(loss.loss.proxies.detach(), dim=1)
    else:
        species = unit(4, 32)
    noise = unit(16, 32, seed=1)
    near = torch.where((LABEL >= 0)[:, None], 2 * species[LABEL.clamp_min(0)] + noise, noise)
    random = noise.clone().requires_grad_()
    together = loss(torch.nn.functional.normalize(near, dim=1), LABEL)
    assert together < loss(random, LABEL)
    loss(random, LABEL).backward()
    assert random.grad is not None and torch.isfinite(random.grad).all() and random.grad[:10].abs().sum() > 0
    # Background that looks like a species costs more than background that does not.
    alike = torch.nn.functional.normalize(torch.where((LABEL >= 0)[:, None], near, 2 * species[:1] + noise), dim=1)
    assert loss(alike, LABEL) > together


@pytest.mark.parametrize("name", LOSSES)
def test_backgrounds_on_one_spot_are_no_better_than_apart(name: str) -> None:
    torch.manual_seed(0)
    loss = MetricLoss(LossSettings(name), 4, 32)
    noise = unit(16, 32, seed=1)
    background = torch.full((16,), BACKGROUND)
    if name == "proxy-anchor":
        pushed = noise.clone().requires_grad_()
        loss(pushed, background).backward()
        assert pushed.grad is not None
        proxies = torch.nn.functional.normalize(loss.loss.proxies.detach(), dim=1)
        closeness = (noise @ proxies.T).max(1)
        step = torch.nn.functional.normalize(noise - 0.05 * pushed.grad / pushed.grad.norm(), dim=1)
        worst = closeness.values.argmax()
        assert (step @ proxies.T)[worst, closeness.indices[worst]] < closeness.values[worst]
    else:
        assert loss(noise[:1].expand(16, -1), background) >= loss(noise, background) - 1e-6


def test_proxies_are_parameters_one_for_each_species() -> None:
    loss = MetricLoss(LossSettings("proxy-anchor"), 7, 16)
    assert [tuple(p.shape) for p in loss.parameters()] == [(8, 16)], "and one for background, which stays out"
    loss(unit(16, 16), LABEL).backward()
    gradient = next(loss.parameters()).grad
    assert gradient is not None and (gradient[:7].abs().sum(1) > 0).all() and (gradient[7] == 0).all()
    assert not list(MetricLoss(LossSettings(), 7, 16).parameters())


def test_the_papers_triplets_are_semi_hard_in_cosine() -> None:
    plan = paper_recipe()
    loss = MetricLoss(plan.loss, 4, 2)

    def at(*degrees: float) -> torch.Tensor:
        angle = torch.tensor(degrees).deg2rad()
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    label = torch.tensor([0, 0, 1])
    # Of anchor 0: positive at 10, negative at 40 degrees: similarity 0.985 and 0.766, semi-hard (0 < gap < 0.734).
    anchor, positive, negative = loss.miner(at(0, 10, 40), label)
    assert (0, 1, 2) in set(zip(anchor.tolist(), positive.tolist(), negative.tolist(), strict=True))
    gaps = np.cos(np.deg2rad([[10, 40], [10, 30]]))
    expected = np.mean([max(n - p + 0.539, 0) for p, n in gaps])
    assert float(loss(at(0, 10, 40), label)) == pytest.approx(expected, abs=1e-5)
    # A hard negative (nearer than the positive) and one far away are left out.
    assert len(loss.miner(at(0, 40, 10), torch.tensor([0, 0, 1]))[0]) < 2
    assert len(loss.miner(at(0, 10, 180), label)[0]) == 0


def test_the_papers_recipe_is_as_published() -> None:
    plan = paper_recipe()
    assert (plan.loss.name, plan.loss.margin, plan.loss.miner, plan.loss.miner_margin) == (
        "triplet",
        0.539,
        "semihard",
        0.734,
    )
    assert (plan.training.optimizer, plan.training.schedule, plan.training.learning_rate) == ("adam", "plateau", 5.9e-5)
    assert plan.training.plateau_patience == 50 and plan.batch.windows == "single"
    assert plan.augmentation == AugmentationSettings(0.3, 0.3, (0.05, 0.2), 0.3, 2, 0.9, 0.3)
    windows = 2 * (plan.stream.species * plan.batch.instances + plan.batch.anywhere + plan.batch.furniture)
    assert 95 <= windows <= 110, "35 triplets"


def test_every_species_weighs_the_same_when_balanced() -> None:
    losses = torch.tensor([1.0] * 8 + [3.0] * 2)
    labels = torch.tensor([0] * 8 + [1] * 2)
    index = torch.arange(10)
    assert BalancedReducer(1.0).element_reduction(losses, index, losses, labels) == pytest.approx(2.0)
    assert BalancedReducer(0.0).element_reduction(losses, index, losses, labels) == pytest.approx(1.4)
    background = torch.tensor([0] * 2 + [-1, -2, -3, -4, -5, -6, -7, -8, -9])
    values = torch.tensor([1.0] * 2 + [3.0] * 9)
    assert BalancedReducer(1.0).element_reduction(values, torch.arange(11), values, background) == pytest.approx(2.0)
    triplets = [torch.tensor([0, 0, 8, 9])] * 3
    found = BalancedReducer(1.0).triplet_reduction(torch.tensor([1.0, 1.0, 3.0, 0.0]), triplets, losses, labels)
    assert found == pytest.approx(2.0), "two of one species, one of another; the one without loss does not count"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"name": "guess"}, "choose supcon, triplet, multisimilarity, proxy-anchor or circle"),
        ({"miner": "hard", "name": "proxy-anchor"}, "loss.miner"),
        ({"temperature": 0.0}, "loss.temperature = 0: give a value within"),
        ({"margin": -1.0}, "loss.margin"),
    ],
)
def test_a_loss_that_cannot_be_is_told(settings: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        LossSettings(**settings)  # type: ignore[arg-type]


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    schedule = Schedule(TrainingSettings(steps=100, warmup=10, learning_rate=1e-3))
    rates = [schedule.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4) and max(rates) == pytest.approx(1e-3) and rates[100] == pytest.approx(1e-5)
    assert (np.diff(rates[:10]) > 0).all() and (np.diff(rates[11:]) < 0).all()


def test_the_learning_rate_falls_when_the_loss_stops_falling_and_only_then() -> None:
    settings = TrainingSettings(schedule="plateau", warmup=0, plateau_every=5, plateau_patience=2, learning_rate=1.0)
    schedule = Schedule(settings)
    for step in range(30):
        schedule.look(10.0 - 0.1 * step)
    assert schedule.rate(30) == 1.0
    for _ in range(3 * 5 - 1):
        schedule.look(9.0)
    halfway = Schedule(settings)
    halfway.restore(schedule.state())
    assert halfway.rate(44) == 1.0
    halfway.look(9.0)
    assert halfway.rate(45) == 0.5
