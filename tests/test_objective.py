"""How terms become one scalar: each weighting against a computation by hand, and what holds for all of them."""

import math
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import endwise as ew
from endwise import recipe as recipes
from endwise.batch import Batch, Ragged
from endwise.errors import RecipeError
from endwise.objective import Objective, denominators, term_values
from endwise.optimise import Apart, Pulls, StepResult
from endwise.testing import cases
from endwise.train import loop
from endwise.weighting import (
    DWA_WINDOW,
    GRADNORM_ALPHA,
    GRADNORM_EVERY,
    WEIGHTINGS,
    Dwa,
    GradNorm,
    projected,
)
from tests.test_train import TINY, events, recipe, table, weights

TERMS = ("one.error", "two.error")
LEARNT = [name for name in WEIGHTINGS if name != "fixed"]


def objective(weighting: str, *, own: tuple[float, float] = (1.0, 1.0), epoch_steps: int = 1) -> Objective:
    outputs = {name: ew.Number(loss_weight=weight) for name, weight in zip(("one", "two"), own, strict=True)}
    return Objective(outputs, dict.fromkeys(TERMS, 1.0), weighting, epoch_steps=epoch_steps)


def two(one: float, other: float) -> dict[str, Tensor]:
    return {TERMS[0]: torch.tensor(one), TERMS[1]: torch.tensor(other)}


def factors(made: Objective) -> list[float]:
    return [float(value.detach()) for value in made.weights().values()]


def test_every_weighting_of_the_recipe_is_there() -> None:
    assert set(get_args(recipes.Objective.model_fields["weighting"].annotation)) == set(WEIGHTINGS)


# ---- GradNorm ------------------------------------------------------------------------------------------------------------


def adam(made: GradNorm) -> torch.optim.Optimizer:
    groups = [{"params": group["params"], "lr": group["peak"]} for group in made.groups()]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)


def gradnorm(own: tuple[float, float] = (1.0, 1.0)) -> tuple[Objective, GradNorm]:
    made = objective("gradnorm", own=own)
    assert isinstance(made.weighting, GradNorm)
    return made, made.weighting


def test_gradnorm_makes_the_terms_pull_alike() -> None:
    """Two terms that learn equally fast, one with four times the gradient: shares 0.4 and 1.6, by w g equal, sum 2."""
    made, weighting = gradnorm()
    optimiser = adam(weighting)
    for _ in range(200):
        optimiser.zero_grad()
        made.learn(two(1.0, 1.0), two(4.0, 1.0))
        optimiser.step()
        weighting.bound()
    assert factors(made) == pytest.approx([0.4, 1.6], abs=0.1)


def test_gradnorm_lets_the_slow_learner_pull_harder() -> None:
    """Losses at 0.5 and 1 of their first: the paces are 2/3 and 4/3, and the pulls end as these to the power of 1.5."""
    made, weighting = gradnorm()
    optimiser = adam(weighting)
    for _ in range(400):
        optimiser.zero_grad()
        made.learn(two(0.5, 1.0), two(1.0, 1.0))
        optimiser.step()
        weighting.bound()
    one, other = factors(made)
    assert other / one == pytest.approx(2**GRADNORM_ALPHA, rel=0.1)


def test_gradnorms_gradient_is_the_papers() -> None:
    """d/dw sum |w g - target| with the target held: g times the sign, here by the mean norm."""
    _, weighting = gradnorm()
    values, norms = torch.tensor([0.5, 1.0]), torch.tensor([3.0, 1.0])
    weighting.learn(values, norms)
    shares = torch.ones(2, requires_grad=True)
    pulls = shares * norms
    pace = values / values.mean()
    (pulls - (pulls.mean() * pace**GRADNORM_ALPHA).detach()).abs().sum().backward()
    assert weighting.shares.grad is not None
    assert shares.grad is not None
    assert torch.allclose(weighting.shares.grad, shares.grad / norms.mean())


def test_a_term_without_a_label_in_the_batch_does_not_move_the_shares() -> None:
    _, weighting = gradnorm()
    weighting.learn(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))
    assert weighting.shares.grad is not None
    assert weighting.shares.grad.tolist() == [0.0, 0.0]


def test_gradnorm_keeps_what_the_recipe_says_about_importance() -> None:
    made, _ = gradnorm(own=(3.0, 1.0))
    assert factors(made) == [3.0, 1.0]


# ---- DWA -----------------------------------------------------------------------------------------------------------------


def test_dwa_weighs_by_the_last_two_means() -> None:
    """Liu, Johns & Davison (2019), equation 7: T softmax(r / 2), r the last mean by the one before; equal until then."""
    made = objective("dwa", epoch_steps=2)
    history = [(4.0, 2.0), (2.0, 2.0), (1.0, 2.0), (2.0, 2.0)]  # means 3, 2 and then 1.5, 2
    seen = []
    for one, other in history:
        made.learn(two(one, other), None)
        seen.append(factors(made))
    assert seen[:3] == [[1.0, 1.0]] * 3
    exponents = [math.exp(1.5 / 3.0 / 2), math.exp(2.0 / 2.0 / 2)]
    assert seen[3] == pytest.approx([2 * item / sum(exponents) for item in exponents])


def test_dwa_takes_an_epoch_or_its_window() -> None:
    made = [objective("dwa", epoch_steps=steps).weighting for steps in (7, 10_000)]
    assert [item.window for item in made if isinstance(item, Dwa)] == [7, DWA_WINDOW]


# ---- PCGrad --------------------------------------------------------------------------------------------------------------

rows = st.lists(st.lists(st.floats(-3, 3), min_size=4, max_size=4), min_size=2, max_size=2)


@given(rows, st.integers(0, 9))
def test_of_two_terms_neither_undoes_the_other(gradients: list[list[float]], seed: int) -> None:
    """Each projected gradient has no part against the other's own, and the sum therefore neither, but for rounding."""
    own = torch.tensor(gradients, dtype=torch.float64)
    torch.manual_seed(seed)
    total = projected(own @ own.T) @ own
    assert bool((own @ total >= -1e-9).all())


def test_projection_by_hand() -> None:
    own = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    # (1, 0) without its part along (-1, 1) is (.5, .5); (-1, 1) without its part along (1, 0) is (0, 1)
    assert (projected(own @ own.T) @ own).tolist() == pytest.approx([0.5, 1.5])
    agreeing = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    assert (projected(agreeing @ agreeing.T) @ agreeing).tolist() == [2.0, 1.0]


def test_projection_of_three_is_the_papers_loop() -> None:
    """Algorithm 1 on vectors, with the same random orders."""
    own = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) - 0.3
    torch.manual_seed(7)
    found = projected(own @ own.T) @ own
    torch.manual_seed(7)
    total = torch.zeros(5, dtype=torch.float64)
    for one in range(3):
        mixed = own[one].clone()
        for place in torch.randperm(2).tolist():
            other = own[[item for item in range(3) if item != one][place]]
            if mixed @ other < 0:
                mixed = mixed - (mixed @ other) / (other @ other) * other
        total += mixed
    assert torch.allclose(found, total)


class Split(nn.Module):
    """One shared layer and two heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shared, self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 1), nn.Linear(3, 1)

    def values(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.shared(x).tanh()
        return {TERMS[0]: (self.one(hidden) - 1).square().mean(), TERMS[1]: (self.two(hidden) + 1).square().mean()}


def test_the_heads_gradients_are_added_and_the_shared_ones_projected() -> None:
    network, x = Split(), torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    weighed = {name: torch.tensor(weight) for name, weight in zip(TERMS, (1.0, 2.0), strict=True)}
    own = []
    for name, value in network.values(x).items():
        found = torch.autograd.grad(weighed[name] * value, list(network.shared.parameters()), retain_graph=True)
        own.append(torch.cat([item.flatten() for item in found]).double())
    torch.manual_seed(0)
    wanted = projected(torch.stack(own) @ torch.stack(own).T) @ torch.stack(own)
    apart = Apart(network)
    for part in (x[:2], x[2:]):  # two micro-batches, each its share of the mean
        apart.add({name: value * len(part) / 6 for name, value in network.values(part).items()}, weighed)
    torch.manual_seed(0)
    apart.join()
    found = torch.cat([item.grad.flatten() for item in network.shared.parameters() if item.grad is not None])
    assert torch.allclose(found.double(), wanted, atol=1e-6)
    heads = [item.grad.clone() for item in network.two.parameters() if item.grad is not None]
    network.zero_grad()
    (2 * network.values(x)[TERMS[1]]).backward()
    assert all(
        torch.allclose(one, item.grad, atol=1e-6) for one, item in zip(heads, network.two.parameters(), strict=True)
    )


# ---- what holds for all --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(
    st.sampled_from(LEARNT),
    st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0, 1e3)), max_size=8),
)
@example("dwa", [(0.0, 0.0, 0.0, 0.0), (0.004, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0)])
def test_weights_stay_positive_and_keep_their_sum(
    weighting: str, history: list[tuple[float, float, float, float]]
) -> None:
    made = objective(weighting, epoch_steps=2)
    groups = [{"params": group["params"], "lr": group["peak"]} for group in made.weighting.groups()]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0) if groups else None
    for one, other, first, second in history:
        made.zero_grad()
        total = made(two(one, other))
        if total.requires_grad:
            total.backward()
        made.learn(two(one, other), two(first, second))
        if optimiser is not None:
            optimiser.step()
        made.weighting.bound()
        assert all(value > 0 and math.isfinite(value) for value in factors(made))
        if weighting in ("gradnorm", "dwa", "pcgrad"):
            assert sum(factors(made)) == pytest.approx(2.0, abs=1e-4)


@pytest.mark.parametrize("weighting", list(WEIGHTINGS))
def test_a_saved_weighting_goes_on_as_if_nothing_had_happened(weighting: str) -> None:
    made = objective(weighting, epoch_steps=2)
    for value in (3.0, 1.0, 2.0, 0.5, 0.7):
        made.learn(two(value, 1.0), two(1.0, value))
    again = objective(weighting, epoch_steps=2)
    again.load_state_dict(made.state_dict())
    for item in (made, again):
        item.learn(two(0.1, 1.0), two(1.0, 0.3))
    assert factors(made) == factors(again)


@pytest.mark.parametrize("weighting", LEARNT)
def test_a_resumed_training_is_the_uninterrupted_one(
    tmp_path: Path, weighting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same seed, same bits; one of the two is broken off in the middle and goes on from its last checkpoint. Weights
    that move are in the log, and norms where they are taken."""
    declared = recipe(table(tmp_path / "t.csv", 60), steps=16).replace(**{"objective.weighting": weighting})
    ew.fit(declared, out=tmp_path / "whole")
    once, real = iter([True]), loop.step

    def stopping(*args: Any, **given: Any) -> StepResult:
        result = real(*args, **given)
        if given["done"] == 0.5 and next(once, False):
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(loop, "step", stopping)
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        ew.fit(declared, out=tmp_path / "run")
    ew.fit(declared, out=tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    steps = [event for event in events(tmp_path / "whole") if event["event"] == "step"]
    logged = [tuple(term["weight"] for term in event["terms"].values()) for event in steps]
    assert (len(set(logged)) > 1) == (weighting != "pcgrad")
    measured = [event["step"] for event in steps if "grad_norm" in next(iter(event["terms"].values()))]
    assert measured == ([*range(1, 17, GRADNORM_EVERY)] if weighting == "gradnorm" else [1])


def test_who_pulls_how_hard_adds_up_over_micro_batches() -> None:
    """Norms and cosines at the tokens of the effective batch, whole or in two parts."""
    torch.manual_seed(0)
    tokens = torch.randn(4, 3, 2)
    one, other = torch.randn(2), torch.randn(2)

    def values(part: Tensor) -> dict[str, Tensor]:
        return {TERMS[0]: (part @ one).square().sum() / 4, TERMS[1]: (part @ other).sin().sum() / 4}

    whole, parts = Pulls(), Pulls()
    leaf = tokens.clone().requires_grad_()
    whole.add(values(leaf), {"here": leaf})
    for piece in (tokens[:1], tokens[1:]):
        leaf = piece.clone().requires_grad_()
        parts.add(values(leaf), {"here": leaf})
    for name, norm in whole.norms().items():
        assert float(norm) == pytest.approx(float(parts.norms()[name]), rel=1e-5)
    cosine, again = (found.told()["here"].cosines[TERMS[0]][TERMS[1]] for found in (whole, parts))
    assert cosine == pytest.approx(again, rel=1e-5)


# ---- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", LEARNT)
def test_one_term_has_nothing_to_be_weighed_against(weighting: str) -> None:
    declared = {"data": "t.csv", "inputs": {"a": "number"}, "objective": {"weighting": weighting}}
    with pytest.raises(RecipeError, match=r"objective\.weighting.*Fix: remove it"):
        ew.Recipe(**declared, outputs={"b": "number"})
    ew.Recipe(**{**declared, "inputs": {"a": "audio"}}, outputs={"b": ew.Text(decoder="ctc+attention")})  # two terms


def test_gradnorm_is_refused_where_a_head_does_not_pull_at_the_shared_tokens(tmp_path: Path) -> None:
    declared = ew.Recipe(
        data=str(table(tmp_path / "t.csv")),
        inputs={"a": "number", "b": "number"},
        outputs={"side": "category", "place": ew.Embedding()},
        objective={"weighting": "gradnorm"},
        train={"size": "tiny", "steps": 2},
    )
    with pytest.raises(RecipeError, match=r"place\.contrast does not pull.*Fix: write weighting"):
        ew.fit(declared, out=tmp_path / "run")


def test_heads_have_as_many_terms_as_they_say() -> None:
    for case in cases():
        if not case.is_input:
            model, batch = case.model(), case.batch().to("cpu")
            found = term_values(
                model.network, model.network(batch.inputs, batch.present), batch, denominators(model.network, batch)
            )
            assert len(found) == case.declared.num_terms, case.label


# ---- with stages -----------------------------------------------------------------------------------------------------


def staged(weighting: str, hand_off: str, **changes: Any) -> ew.Recipe:
    """A class from a number, and a number from the class."""
    data = [
        {"x": float(item), "side": "up" if item % 8 > 3 else "down", "total": float(item % 8)} for item in range(64)
    ]
    return ew.Recipe(
        name="chain",
        data=data,
        inputs={"x": "number"},
        outputs={"total": "number"},
        stages={
            "see": {"from": "x", "to": {"side": "category"}},
            "add": {"from": "side", "to": "total", "hand_off": hand_off},
        },
        **{"regime": "joint", **changes},
        objective={"weighting": weighting},
        train={**TINY, "steps": 3},
    )


def test_the_gradient_of_a_later_stage_meets_that_of_the_stage_before(tmp_path: Path) -> None:
    """What the first stage learns from both is projected, its head, too; behind a hard hand-off there is nothing to meet."""
    for hand_off, count in (("soft", 2), ("hard", 1)):
        model = ew.fit(staged("pcgrad", hand_off), out=tmp_path / hand_off)
        part = model.network.parts()["see.outputs.side"]
        apart, batch = Apart(model.network), one_batch(model)
        found, _ = model.network.taught(batch, 0.0)
        values = term_values(model.network, found, batch, denominators(model.network, batch))
        apart.add(values, {name: torch.tensor(1.0) for name in values})
        place = next(index for index, item in enumerate(apart.weights) if item is next(part.parameters()))
        assert sum(gradients[place] is not None for gradients in apart.gradients.values()) == count


def one_batch(model: ew.Model) -> Batch:
    """Eight rows of the chain."""
    declared = {**model.recipe.inputs, **model.recipe.outputs}
    raw: dict[str, list[Any]] = {"x": [*range(8)], "side": ["up", "down"] * 4, "total": [*range(8)]}
    fields = {
        name: Ragged.stack(
            [
                item.transform(item.read(value, lambda path: path.encode()), model.contracts[name])
                for value in raw[name]
            ],
            item.axes,
        )
        for name, item in declared.items()
    }
    return Batch(
        inputs={name: fields[name] for name in model.recipe.inputs},
        targets={name: fields[name] for name in model.recipe.outputs},
        present=dict.fromkeys(fields, np.ones(8, dtype=bool)),
        weight=np.ones(8, dtype=np.float32),
        row_ids=np.arange(8),
    ).to("cpu")


def notes(run: Path) -> list[str]:
    return [event["message"] for event in events(run) if event["event"] == "note"]


def test_what_a_weighting_has_no_say_in_is_told(tmp_path: Path) -> None:
    ew.fit(staged("gradnorm", "hard"), out=tmp_path / "hard")
    assert any("gradnorm has nothing to weigh in the regime joint" in line for line in notes(tmp_path / "hard"))
    ew.fit(staged("dwa", "soft", regime="joint_goal_only"), out=tmp_path / "goal")
    assert any("dwa has nothing to weigh in the regime joint_goal_only" in line for line in notes(tmp_path / "goal"))
    step = next(event for event in events(tmp_path / "goal") if event["event"] == "step")
    assert {name: term["weight"] for name, term in step["terms"].items()} == {
        "total.error": 1.0,
        "side.cross_entropy": 0.0,
    }
    ew.fit(staged("gradnorm", "soft"), out=tmp_path / "soft")
    assert not any("gradnorm" in line for line in notes(tmp_path / "soft"))
