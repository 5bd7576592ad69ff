"""The section `stages`: a pipeline between the inputs and the outputs, the order of its parts, and whose neighbours an
output stands among."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, field_validator

from endwise.errors import ModelError, refusal, require
from endwise.modalities.base import Modality
from endwise.recipe.part import Part

Regime = Literal["modular", "modular_predicted", "warm_joint", "joint", "joint_goal_only", "direct"]
REGIMES: tuple[str, ...] = get_args(Regime)
PARTED = ("modular", "modular_predicted")  # parts that know of each other's answers alone


class Stage(Part):
    """One part of a pipeline: what it reads (inputs, and answers of other stages) and which outputs it answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=True)

    given: tuple[str, ...] = Field(alias="from", description="inputs and other stages' outputs that it reads")
    to: tuple[str, ...] = Field(description="the outputs that it answers; here they may be declared, too")
    hand_off: Literal["soft", "straight_through", "gumbel", "latent", "hard"] = Field(
        "soft",
        description="how it reads other stages' answers while all learn together. soft: the chances of every symbol; "
        "straight_through: the answer itself, with the gradient of soft (Bengio et al. 2013); gumbel: an answer drawn "
        "(Jang et al. 2017); latent: the tokens behind the answer; hard: the answer itself, which cuts the gradient",
    )
    detach: bool = Field(False, description="no gradient goes back through its hand-offs")
    teacher_forcing: float = Field(
        0.0, ge=0, le=1,
        description="share of the rows that it gets the true answers of at the first step, falling to none at half of "
        "the steps (scheduled sampling; Bengio et al. 2015)",
    )  # fmt: skip
    temperature: tuple[float, float] = Field(
        (1.0, 0.5), description="of soft, straight_through and gumbel: at the first step and at the last"
    )
    shares: tuple[str, ...] = Field(
        (),
        description="inputs whose encoder it has in common with the first stage that reads them, in the place of one of its own; in "
        "training apart it takes that stage's as it is",
    )
    run: str | None = Field(
        None,
        description="another run that this stage begins with, in the place of training it apart: a run of this stage alone, or one "
        "with a stage of this name",
    )

    by: Any = Field(
        None,
        description="in Python: a function that answers it in the place of a network, {name: answer or raw value} -> answer; not learnt",
    )

    @field_validator("by")
    @classmethod
    def _called(cls, value: Any) -> Any:
        require(
            value is None or callable(value), field="stages: by", got=value, allowed="a function, which only Python can give",
            fix="pass the recipe from Python, or let a network learn the stage",
        )  # fmt: skip
        return value

    @field_validator("given", "to", "shares", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else value

    @field_validator("given", "to")
    @classmethod
    def _at_least_one(cls, value: Any) -> Any:
        if not value:
            raise ValueError("a name or a list of names")
        return value

    @field_validator("temperature")
    @classmethod
    def _above_zero(cls, value: Any) -> Any:
        if min(value) <= 0:
            raise ValueError("two numbers above 0")
        return value


@dataclass(frozen=True)
class Elsewhere:
    """The function of a stage as a run or a model remembers it: by its name, which is never imported."""

    stage: str
    name: str

    def __call__(self, answers: Mapping[str, Any]) -> Any:
        raise ModelError(
            f"stage {self.stage} is computed by {self.name}, which no file holds. Fix: Model.load(folder, functions={{{self.stage!r}: ...}})."
        )


def in_order(stages: Mapping[str, Stage]) -> list[str]:
    """The stages, each behind those whose answers it reads. RecipeError where they go round in a circle."""
    maker = {name: stage for stage, item in stages.items() for name in item.to}
    found: list[str] = []
    path: list[str] = []

    def visit(stage: str) -> None:
        if stage in found:
            return
        if stage in path:
            raise refusal(
                field=f"stages.{path[-1]}.from",
                got=" -> ".join([*path[path.index(stage) :], stage]),
                allowed="stages that do not wait for each other in a circle",
                fix="let one of them read an input in the place of the other's answer",
            )
        path.append(stage)
        for name in stages[stage].given:
            if name in maker:
                visit(maker[name])
        path.pop()
        found.append(stage)

    for stage in stages:
        visit(stage)
    return found


def owner(stages: Mapping[str, Stage], given: str) -> str | None:
    """The first stage, in their order, that reads an input with an encoder of its own."""
    reading = (name for name in in_order(stages) if given in stages[name].given and given not in stages[name].shares)
    return next(reading, None)


def standing(
    output: str, inputs: Mapping[str, Modality], outputs: Mapping[str, Modality], stages: Mapping[str, Stage]
) -> Modality:
    """An output as it stands among its neighbours: those of its stage, where there are stages."""
    stage = next((item for item in stages.values() if output in item.to), None)
    if stage is None:
        return outputs[output].beside(inputs, outputs)
    given = {name: inputs[name] if name in inputs else outputs[name] for name in stage.given}
    return outputs[output].beside(given, {name: outputs[name] for name in stage.to})


def with_stage_outputs(values: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs that stages declare, behind those under `outputs`: an answer on the way is an output like any other."""
    stages = values.get("stages")
    if not isinstance(stages, Mapping) or not isinstance(values.get("outputs"), Mapping):
        return dict(values)
    outputs, plain = dict(values["outputs"]), {}
    for stage, item in stages.items():
        to = item.get("to") if isinstance(item, Mapping) else None
        if isinstance(to, Mapping):
            for name, declared in to.items():
                require(
                    name not in outputs, field=f"stages.{stage}.to.{name}", got=name,
                    allowed="an output that is declared in one place",
                    fix=f"write to: [{name}] where it is only named, or remove the other declaration",
                )  # fmt: skip
                outputs[name] = declared
            item = {**item, "to": list(to)}
        plain[stage] = item
    return {**values, "outputs": outputs, "stages": plain}


def named(function: Any) -> str:
    """How a function is remembered."""
    if isinstance(function, Elsewhere):
        return function.name
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__qualname__)}"
