"""The sections that say how training goes: what is aimed at, what is made small, how large, how long, from which weights."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, field_serializer, field_validator

from endwise.errors import RecipeError, refusal, require
from endwise.modalities.base import Modality
from endwise.priors import Prior, prior_of
from endwise.recipe.part import NAME, SECONDS, Part, in_seconds


class Goal(Part):
    """The one number that early stopping and comparisons look at."""

    output: str = Field(description="the output that decides")
    metric: str = Field(description="one of its metrics, as `endwise evaluate` names them")
    direction: Literal["min", "max"] = Field(description="whether smaller is better, or larger")


class Objective(Part):
    """How the named loss terms become one scalar."""

    weighting: Literal["fixed", "uncertainty", "gradnorm", "dwa", "pcgrad"] = Field(
        "fixed",
        description="fixed: each output's loss_weight; uncertainty: learnt log-variances (Kendall 2018), clamped; gradnorm: "
        "every term pulls equally hard at the shared tokens, slow learners harder (Chen 2018); dwa: more for what falls more "
        "slowly (Liu 2019); pcgrad: of each term's gradient what points against another's is taken away (Yu 2020), one "
        "backward pass a term. loss_weight counts in each",
    )
    priors: tuple[Prior, ...] = Field(
        (),
        description="what is known beforehand, as further terms: a list of the priors below; in Python also your own",
    )

    @field_validator("priors", mode="before")
    @classmethod
    def _declared(cls, value: Any) -> Any:
        require(
            isinstance(value, list | tuple),
            field="objective.priors",
            got=value,
            allowed="a list",
            fix="write - {type: range, of: price, low: 0}",
        )
        return tuple(prior_of(item, f"objective.priors[{place}]") for place, item in enumerate(value))

    def check(self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality]) -> None:
        """RecipeError where it does not fit the fields, or says nothing."""
        terms = sum(item.num_terms for item in outputs.values())
        if self.weighting == "pcgrad":  # the others have no say in the weight of a prior
            terms += len(self.priors)
        require(
            self.weighting == "fixed" or terms > 1,
            field="objective.weighting",
            got=self.weighting,
            allowed="fixed, where there is one term to weigh",
            fix="remove it: there is nothing to weigh one term against",
        )
        names = [item.term for item in self.priors]
        for item in self.priors:
            require(
                bool(NAME.match(item.term.removeprefix("prior."))) and names.count(item.term) == 1,
                field="objective.priors",
                got=item.term,
                allowed="a name of letters, digits, spaces, '_' and '-' that no other prior has",
                fix="give it a name:",
            )
            item.check(inputs, outputs)
        require(
            not self.priors or "prior" not in outputs,
            field="field name",
            got="prior",
            allowed="another name beside priors, whose terms are called prior.NAME",
            fix="rename the output and say column: for the column's own",
        )

    def among(
        self, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality], whole: Iterable[str]
    ) -> "Objective":
        """What of it says something in a network of these fields alone (of a stage). whole: all names of the recipe."""

        def fits(prior: Prior) -> bool:
            try:
                prior.check(inputs, outputs)  # an answer of another stage is an input here
            except RecipeError:
                return False
            return set(prior.named(whole)) <= {*inputs, *outputs}

        kept = tuple(item for item in self.priors if fits(item))
        terms = sum(item.num_terms for item in outputs.values()) + (len(kept) if self.weighting == "pcgrad" else 0)
        return Objective(weighting=self.weighting if terms > 1 else "fixed", priors=kept)

    @field_serializer("priors")
    def _plain(self, priors: tuple[Prior, ...]) -> list[dict[str, Any]]:
        return [item.to_dict() for item in priors]


class Trunk(Part):
    """Overrides of what the size dial gives; null means the dial's."""

    width: int | None = Field(None, ge=8, description="token width")
    depth: int | None = Field(None, ge=0, description="blocks of the encoders and of the trunk")
    heads: int | None = Field(None, ge=1, description="attention heads; divides width")
    dropout: float | None = Field(None, ge=0, lt=1, description="dropout in all blocks")
    attention: bool = Field(
        False,
        description="attention between inputs that are one token each (numbers, classes, dates), too, where a perceptron reads "
        "them side by side: several times the time of a step and of an answer",
    )


class Train(Part):
    """How long, how large, from which seed."""

    size: Literal["tiny", "small", "base", "large"] = Field(
        "small", description="the one dial: widths and depths follow"
    )
    steps: int | None = Field(None, ge=1, description="optimiser steps; null: from epochs or budget or the data's size")
    epochs: float | None = Field(None, gt=0, description="passes over the training rows")
    budget: float | None = Field(
        None,
        gt=0,
        description="wall-clock limit: seconds, or text such as 90s, 5m, 1h; what would be trained without it is not made longer",
    )
    batch_size: int | Literal["auto"] = Field("auto", description="rows per optimiser step (the effective batch)")
    micro_batch: int | None = Field(None, ge=1, description="rows per backward pass; null: the whole batch if it fits")
    learning_rate: float | Literal["auto"] = Field("auto", description="peak learning rate")
    weight_decay: float | None = Field(None, ge=0, description="decoupled weight decay; null: 0.05")
    augment: bool = Field(True, description="random changes of the training inputs, inside the network")
    ema: bool = Field(True, description="keep and use an exponential moving average of the weights")
    patience: int | None = Field(
        None, ge=1, description="stop after this many evaluations without progress; null: never"
    )
    seed: int = Field(0, ge=0, description="of weights, order, augmentation and dropout")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where it measures faster"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")

    @field_validator("budget", mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        return in_seconds(value, SECONDS, "a duration such as 90s, 5m or 1h")

    @field_validator("batch_size")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if isinstance(value, int) and value < 1:
            raise ValueError("a whole number of at least 1, or auto")
        return value


class FromRun(Part):
    """Another run whose weights this one begins with: those of the inputs, the trunk and the outputs that both have by
    the same name. Short: `from_run: runs/pretrain`."""

    run: str = Field(description="the run's folder, or its model/ folder; relative to where training is started")
    freeze: bool = Field(False, description="the encoders and the trunk that are taken do not learn any more")


def seconds_of(budget: float | str | None) -> float | None:
    """A time limit as a recipe writes it, in seconds. RecipeError for what is none."""
    try:
        return None if budget is None else Train(budget=budget).budget
    except ValidationError:
        raise refusal(
            field="budget", got=budget, allowed="a duration above 0 such as 90s, 5m or 1h", fix="give such a value"
        ) from None
