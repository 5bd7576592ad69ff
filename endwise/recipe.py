"""The recipe: what goes in, what comes out, and how to train. Frozen, checked when made; YAML = JSON = Python.

A recipe holds declarations only. What is learnt from data is the contract's, what is decided before step 0 the plan's.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from endwise.errors import ModelError, RecipeError, nearest, refusal, require, unknown_name
from endwise.modalities import TABLE, modality_class
from endwise.modalities.base import INPUT_ROLE, OUTPUT_ROLE, Modality, Role, build
from endwise.modalities.pretrained import rebased
from endwise.priors import BUILT_IN, Prior, prior_of

RECIPE_VERSION = 1
RECIPE_FILES = (".yaml", ".yml", ".json")
MAX_RECIPE_BYTES = 1_000_000  # a recipe is a page, not a data set
NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_\- ]*$")

DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(s|m|h|)\s*$")
STEP = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(s|m|h|d|)\s*$")
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


class Part(BaseModel):
    """A section of the recipe: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


SOURCES = ("path", "train", "val", "test")  # the fields of `data` that hold rows


class Gather(Part):
    """Rows of the table that belong together. Short: `gather: picture` for `gather: {by: picture}`."""

    by: str = Field(description="rows with the same value here belong together: a picture's boxes, a user's purchases")
    order: str | None = Field(
        None, description="what they are sorted by, oldest first; null: as they stand in the table"
    )
    earlier: dict[str, str] = Field(
        {},
        description="none: each value of `by` becomes one row, whose other columns are lists. {history: item}: rows stay what they "
        "are and get a column `history` of what the rows before them have as `item`; of each value of `by` only the newest row "
        "stays, on each side of a split column: the others are its history",
    )


class Windows(Part):
    """A long table whose rows are steps in time: a row of the data is then a window of them, a past and a future. Series of
    the inputs see the past, those of the outputs are the future; every other column is what it is in the last row of the past.
    A film is the frames of the past. Where trajectories name an `agent:`, the rows of one time are one step, and where nobody is there a series ends."""

    past: int = Field(ge=1, description="steps that a window looks back on")
    future: int = Field(0, ge=0, description="steps ahead that series of the outputs are; 0: none is an output")
    time: str | None = Field(
        None, description="the column of the time, ascending (dates or numbers); null: rows are in order"
    )
    step: float | str | None = Field(
        None,
        description="the time between two rows (3600, 15m, 1h, 1d): a gap is then refused; null: rows are consecutive steps",
    )
    by: str | None = Field(
        None, description="the column that tells several series of one table apart (a shop, a sensor)"
    )
    every: int = Field(1, ge=1, description="a window begins at every so many steps")

    @field_validator("step")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        if isinstance(value, str):
            found = STEP.match(value)
            if not found:
                raise ValueError("a number, or a duration such as 15m, 1h or 1d")
            return float(found[1]) * {**SECONDS, "d": 86_400.0}[found[2]]
        return value

    @model_validator(mode="after")
    def _of_time(self) -> Self:
        if self.step is not None and self.time is None:
            raise ValueError("a step goes with the column of the time: name it as time")
        return self


Border = int | float | str


class Borders(Part):
    """Where in time the sides of the split begin: a share of the steps (0.8), a number of rows (8640), or a time as the
    table writes it ('2017-06-26'). No future of a window lies on two sides; a past may reach back over a border."""

    val: Border = Field(0.8, description="the first step of validation")
    test: Border | None = Field(0.9, description="the first step of the test; null: no test rows")
    end: Border | None = Field(None, description="the first step that is not used; null: the table's end")


class Data(Part):
    """Where the rows are and how they are split."""

    path: Any = Field(None, description="a table, a folder, an fsspec address, or a frame / list of dicts in Python")
    train: Any = Field(None, description="the training rows, when the splits are separate files")
    val: Any = Field(None, description="the validation rows; none: 10 % of train, by group or content")
    test: Any = Field(None, description="the test rows: they serve no stopping, calibration or threshold")
    split: str | Borders | None = Field(
        None,
        description="a column with train / val / test; a column named 'split' is found by itself, but for windows. Of windows also "
        "where the sides begin: {val: 0.8, test: 0.9}",
    )
    group: str | None = Field(
        None,
        description="rows with the same value are never on two sides (speaker, patient, part); all steps of a window have one value, "
        "and windows are then not split by time",
    )
    time: str | None = Field(None, description="split by this column: the newest rows are test")
    windows: Windows | None = Field(
        None, description="the rows of the table are steps of long series: {past: 336, future: 96}"
    )
    weight: str | None = Field(None, description="a column of sample weights above or equal to 0")
    gather: Gather | None = Field(None, description="rows of the table that are one row of the task, see below")
    tables: dict[str, Any] = Field(
        {},
        description="further tables by name, whose rows are no rows of the task: where a graph's edges and nodes are looked up",
    )
    max_bad: float = Field(
        0.01, ge=0, le=1, description="share of unreadable rows that is put aside and counted; more is refused"
    )

    @property
    def split_column(self) -> str | None:
        """The column that names the sides, where `split` is one."""
        return self.split if isinstance(self.split, str) else None

    @field_validator("max_bad", mode="before")
    @classmethod
    def _percent(cls, value: Any) -> Any:
        if isinstance(value, str) and value.strip().endswith("%"):
            return float(value.strip().rstrip("%")) / 100
        return value

    @field_validator("gather", mode="before")
    @classmethod
    def _short_gather(cls, value: Any) -> Any:
        return {"by": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.train is None):
            raise ValueError("give either 'path' (one source) or 'train' (with optional 'val' and 'test')")
        if self.path is not None and (self.val is not None or self.test is not None):
            raise ValueError("'val' and 'test' go with 'train', not with 'path'")
        if self.time is not None and (self.split is not None or self.group is not None):
            raise ValueError("'time' is a way to split of its own: remove 'split' and 'group'")
        if self.windows is None and isinstance(self.split, Borders):
            raise ValueError(
                "borders in time are for windows of a long table: name a split column, or write windows: {past: ...}"
            )
        if self.windows is not None:
            if self.path is None:
                raise ValueError(
                    "windows are cut from one table: give 'path', and where its sides begin as split: {val: 0.8, test: 0.9}"
                )
            if self.gather is not None:
                raise ValueError(
                    "windows are cut from rows as they are: remove 'gather', or 'windows' where a series is one row's list"
                )
            if self.time is not None:
                raise ValueError(
                    "windows are split by their own time: write windows: {time: COLUMN} and split: {val: 0.8, test: 0.9}, or the "
                    "column that names the sides, without time"
                )
            if self.group is not None and isinstance(self.split, Borders):
                raise ValueError(
                    "windows are split by time or by group: remove 'group', or the borders in 'split' where whole groups are apart"
                )
        return self


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
        if isinstance(value, str):
            found = DURATION.match(value)
            if not found:
                raise ValueError("a duration such as 90s, 5m or 1h")
            return float(found[1]) * SECONDS[found[2]]
        return value

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


PARTED = ("modular", "modular_predicted")  # parts that know of each other's answers alone
REGIMES = ("modular", "modular_predicted", "warm_joint", "joint", "joint_goal_only", "direct")


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


class Recipe(Part):
    """The whole declaration."""

    version: int = Field(RECIPE_VERSION, description="the version of this format")
    name: str | None = Field(None, description="default: the recipe's file or folder name")
    data: Data
    from_run: FromRun | None = None
    inputs: dict[str, Modality]
    outputs: dict[str, Modality]
    stages: dict[str, Stage] = Field({}, description="a pipeline between the inputs and the outputs; none: one network")
    regime: Literal["modular", "modular_predicted", "warm_joint", "joint", "joint_goal_only", "direct"] = Field(
        "warm_joint",
        description="how stages are trained. modular: each apart, on true answers of the others; modular_predicted: then on "
        "the others' own answers; warm_joint: modular, then all on the one objective; joint: that from the start; "
        "joint_goal_only: on the goal's loss alone; direct: one network without the stages in between",
    )
    goal: Goal | None = None
    objective: Objective = Objective()
    trunk: Trunk = Trunk()
    train: Train = Train()

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**_with_stage_outputs(values))
        except ValidationError as wrong:
            raise _in_our_words(wrong, values) from None

    @field_validator("version")
    @classmethod
    def _known_version(cls, value: int) -> int:
        if value != RECIPE_VERSION:
            raise refusal(
                field="version", got=value, allowed=str(RECIPE_VERSION), fix=f"write version: {RECIPE_VERSION}"
            )
        return value

    @field_validator("data", mode="before")
    @classmethod
    def _short_data(cls, value: Any) -> Any:
        if isinstance(value, Data):
            return value
        if _is_columns(value):  # a column may be called 'split', 'path' or 'weight'
            return {"path": value}
        if isinstance(value, Mapping) and any(key in Data.model_fields for key in value):
            return value
        if isinstance(value, Mapping) and all(
            isinstance(key, str) and isinstance(item, str) for key, item in value.items()
        ):
            return value  # a misspelt section: refused by name, not taken for a table of columns
        return {"path": value}

    @field_validator("from_run", mode="before")
    @classmethod
    def _short_from_run(cls, value: Any) -> Any:
        return {"run": str(value)} if isinstance(value, str | Path) else value

    @field_validator("inputs", "outputs", mode="before")
    @classmethod
    def _declarations(cls, value: Any, info: Any) -> Any:
        section = str(info.field_name)
        if not isinstance(value, Mapping) or not value:
            raise refusal(
                field=section,
                got=value,
                allowed="at least one name with its type",
                fix=f"write {section}: {{{'photo: image' if section == 'inputs' else 'label: category'}}}",
            )
        role = INPUT_ROLE if section == "inputs" else OUTPUT_ROLE
        return {name: declare(item, where=f"{section}.{name}", role=role, name=name) for name, item in value.items()}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self._check_names()
        self._check_outputs()
        self._check_numbers()
        self._check_stages()
        self.objective.check(self.inputs, self.outputs)
        self._meet()
        return self

    def _check_names(self) -> None:
        """Names that can be written everywhere, and that no other field has."""
        for name in [*self.inputs, *self.outputs]:
            require(
                isinstance(name, str) and bool(NAME.match(name)),
                field="field name",
                got=name,
                allowed="letters, digits, spaces, '_' and '-', not starting with a digit",
                fix="give the field such a name and say column: for the column's own",
            )
        for section in (self.inputs, self.outputs):
            spelled: dict[str, str] = {}
            for name in section:
                twin = spelled.setdefault(re.sub("[ -]", "_", name), name)
                require(
                    twin == name,
                    field="field name",
                    got=name,
                    allowed=f"a name that differs from {twin!r} in more than ' ', '_' and '-'",
                    fix="rename one and say column: for the column's own",
                )
        for name in self.inputs:
            require(
                name not in self.outputs,
                field=f"outputs.{name}",
                got=name,
                allowed="a name no input has",
                fix="an answer cannot be given as an input; rename one and say column: if both read the same column",
            )

    def _check_outputs(self) -> None:
        """What is answered is no column that decides about rows, and the goal is one of the answers."""
        reserved = {self.data.split_column, self.data.group, self.data.weight} - {None}
        for name, declared in self.outputs.items():
            require(
                declared.of_row > 0 or (declared.column or name) not in reserved,
                field=f"outputs.{name}.column",
                got=declared.column or name,
                allowed="a column that is not data.split, data.group or data.weight",
                fix="an output column cannot decide the split or the weight",
            )
        if self.goal is not None and self.goal.output not in self.outputs:
            raise unknown_name(field="goal.output", got=self.goal.output, names=self.outputs)

    def _check_numbers(self) -> None:
        """Numbers that do not go together."""
        size = self.trunk
        if size.width is not None and size.heads is not None:
            require(
                size.width % size.heads == 0,
                field="trunk.heads",
                got=size.heads,
                allowed=f"a divisor of trunk.width = {size.width}",
                fix="change one of the two",
            )
        given = [name for name in ("steps", "epochs") if getattr(self.train, name) is not None]
        require(
            len(given) < 2,
            field="train.epochs",
            got=self.train.epochs,
            allowed="steps or epochs, not both",
            fix="remove one",
        )

    def _meet(self) -> None:
        """The declarations see each other for the first time; the recipe is frozen for everybody else."""
        self.__dict__["outputs"] = {
            name: standing(name, self.inputs, self.outputs, self.stages) if item.of_row or item.lies else item
            for name, item in self.outputs.items()
        }
        for stage, part in self.stages.items():
            for name in part.given:
                require(
                    name not in self.outputs or self.outputs[name].world_of is None, field=f"stages.{stage}.from", got=name,
                    allowed=f"answers in the places of their input: {name} is said in its world", fix=f"write {name} in its voxels (unit: px)",
                )  # fmt: skip
            for name in part.to if part.hand_off == "latent" else ():
                on = str(getattr(self.outputs[name], "on", None))
                require(
                    on not in self.outputs, field=f"stages.{stage}.hand_off", got="latent",
                    allowed=f"a hand-off of the answer itself: {name} lies on {on}, and tokens have no places",
                    fix="write hand_off: soft",
                )  # fmt: skip
        above: dict[str | None, list[Modality]] = {}
        for item in self.outputs.values():
            if item.lies:
                above.setdefault(getattr(item, "on", None), []).append(item)
        self.__dict__["inputs"] = {
            name: item.beneath(above[name]) if name in above else item for name, item in self.inputs.items()
        }
        if all(item.of_row > 1 for item in self.outputs.values()):  # a row is answered by whatever it has
            self.__dict__["inputs"] = {name: replace(item, optional=True) for name, item in self.inputs.items()}

    def _check_stages(self) -> None:
        """Every output answered by one stage, every input read by one, no circle, and hand-offs that can carry."""
        if not self.stages:
            require(
                "regime" not in self.model_fields_set or self.regime == "direct",
                field="regime", got=self.regime, allowed="a recipe with stages", fix="remove regime, or declare stages",
            )  # fmt: skip
            return
        require(
            self.from_run is None, field="from_run", got=getattr(self.from_run, "run", None),
            allowed="a recipe without stages", fix="write run: at the stage that is to begin with it",
        )  # fmt: skip
        maker: dict[str, str] = {}
        for stage, item in self.stages.items():
            require(bool(NAME.match(stage)), field="stages", got=stage, allowed="a name of letters, digits, ' ', '_' and '-'",
                    fix="rename the stage")  # fmt: skip
            for name in item.to:
                if name not in self.outputs:
                    raise unknown_name(field=f"stages.{stage}.to", got=name, names=self.outputs)
                require(
                    name not in maker, field=f"stages.{stage}.to", got=name,
                    allowed=f"an output that no other stage answers ({maker.get(name)} does)", fix="rename one of the two",
                )  # fmt: skip
                maker[name] = stage
        for stage, item in self.stages.items():
            for name in item.given:
                if name not in self.inputs and name not in maker:
                    raise unknown_name(field=f"stages.{stage}.from", got=name, names=[*self.inputs, *maker])
                carried = self.outputs[name].hand_offs if name in maker else {item.hand_off}
                require(
                    item.hand_off in carried, field=f"stages.{stage}.hand_off", got=item.hand_off,
                    allowed=f"{', '.join(sorted(carried))}: what an answer of type {self.outputs[name].type if name in maker else ''} can go on by",
                    fix="write hand_off: latent, through which a gradient goes" + (", or hard" if "hard" in carried else ""),
                )  # fmt: skip
                require(
                    self.regime not in PARTED or name not in maker or item.by is not None or "hard" in carried,
                    field="regime", got=self.regime,
                    allowed=f"joint, warm_joint or direct: {name}, of type {self.outputs[name].type if name in maker else ''}, goes on as tokens alone, and parts know of each other's answers alone",
                    fix=f"write regime: warm_joint, or let stage {stage} read an answer of another type",
                )  # fmt: skip
        order = in_order(self.stages)
        for stage in order:
            self._check_shares(stage, order)
            self._check_function(stage, maker)
        for section, names, used in (
            ("outputs", self.outputs, set(maker)),
            ("inputs", self.inputs, {name for item in self.stages.values() for name in item.given}),
        ):
            for name in names:
                what = "answers" if section == "outputs" else "reads"
                require(
                    name in used, field=f"{section}.{name}", got=name, allowed=f"one that a stage {what}",
                    fix=f"name it under {'to' if section == 'outputs' else 'from'} of a stage, or remove it",
                )  # fmt: skip

    def _check_shares(self, stage: str, order: list[str]) -> None:
        """What a stage shares is an input that it reads and that an earlier stage has an encoder of."""
        item = self.stages[stage]
        for name in item.shares:
            field = f"stages.{stage}.shares"
            if name not in self.inputs or name not in item.given:
                raise unknown_name(field=field, got=name, names=[given for given in item.given if given in self.inputs])
            require(
                owner(self.stages, name) in order[: order.index(stage)], field=field, got=name,
                allowed="an input that an earlier stage reads with an encoder of its own", fix="remove it here, or write it at the later stage",
            )  # fmt: skip
        require(
            not item.shares or item.run is None, field=f"stages.{stage}.run", got=item.run,
            allowed="a stage with encoders of its own", fix="remove shares, or write run: at the stage whose encoder it is",
        )  # fmt: skip

    def _check_function(self, stage: str, maker: Mapping[str, str]) -> None:
        """A function takes answers and gives one, without a gradient."""
        item, field = self.stages[stage], f"stages.{stage}.by"
        if item.by is None:
            for name in item.given:
                made = self.stages[maker[name]].by if name in maker else None
                require(made is None or item.hand_off != "latent", field=f"stages.{stage}.hand_off", got="latent",
                        allowed=f"a hand-off of the answer: stage {maker.get(name)} is a function and has no tokens",
                        fix="write hand_off: hard")  # fmt: skip
            return
        require(self.regime in ("modular", "direct"), field="regime", got=self.regime,
                allowed=f"modular, or direct without stages: stage {stage} is a function, which lets no gradient through",
                fix="write regime: modular, or let a network learn the stage")  # fmt: skip
        require(len(item.to) == 1 and self.outputs[item.to[0]].can_be_told, field=field, got=list(item.to),
                allowed="one answer of type number, category or boolean", fix="split the stage, or declare such an answer")  # fmt: skip
        for name in item.given:
            require(name in maker or self.inputs[name].can_be_shown, field=f"stages.{stage}.from", got=name,
                    allowed="inputs that a function can be given as they were read: not tags, and of text those in bytes",
                    fix=f"declare another input on the same column for it, such as {name}_raw: {{type: text, units: bytes, column: {name}}}")  # fmt: skip
            require(name not in maker or self.outputs[name].can_be_said, field=f"stages.{stage}.from", got=name,
                    allowed="inputs, and answers of other stages of type number, category, boolean or text, where a function reads them",
                    fix="let a stage that learns read it")  # fmt: skip
        require(item.run is None and not item.shares, field=field, got=item.run or list(item.shares), allowed="a function alone",
                fix="remove run and shares")  # fmt: skip

    def standing(self, output: str) -> Modality:
        """An output as it stands among its neighbours."""
        return standing(output, self.inputs, self.outputs, self.stages)

    @property
    def is_assembled(self) -> bool:
        """Whether its stages are trained apart and only put together."""
        return bool(self.stages) and self.regime == "modular"

    @property
    def intermediates(self) -> list[str]:
        """The outputs that a stage reads, in the order in which stages make them, whatever the order of `outputs:`."""
        read = {name for stage in self.stages.values() for name in stage.given}
        made = (name for stage in in_order(self.stages) for name in self.stages[stage].to)
        return [name for name in made if name in read]

    # ---- in and out -------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML or JSON recipe; relative data paths are taken from the recipe's folder."""
        file = Path(path)
        if file.is_dir():
            file = file / "recipe.yaml"
        require(
            file.is_file(),
            field="recipe",
            got=str(path),
            allowed="an existing YAML or JSON file",
            fix=f"'endwise init {file.parent}' proposes one",
        )
        require(
            file.suffix.lower() in RECIPE_FILES,
            field="recipe",
            got=str(path),
            allowed=f"a file that ends in {', '.join(RECIPE_FILES)}",
            fix=f"if this is the data, 'endwise init {path}' proposes a recipe for it",
        )
        require(
            file.stat().st_size <= MAX_RECIPE_BYTES,
            field="recipe",
            got=str(path),
            allowed=f"a file of at most {MAX_RECIPE_BYTES} bytes",
            fix="is this the data instead of the recipe?",
        )
        values = parse(file.read_text(encoding="utf-8"), where=str(file))
        values.setdefault("name", file.stem if file.stem != "recipe" else file.resolve().parent.name)
        if "data" in values:
            values["data"] = _rebased(values["data"], file.resolve().parent)
        values = _rebased_weights(values, file.resolve().parent)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: only what differs from the defaults, in reading order."""
        out: dict[str, Any] = {"version": self.version}
        if self.name is not None:
            out["name"] = self.name
        out["data"] = {
            name: _plain_source(getattr(self.data, name))
            for name in Data.model_fields
            if getattr(self.data, name) != Data.model_fields[name].default
        }
        if self.from_run is not None:
            out["from_run"] = self.from_run.model_dump(exclude_defaults=True)
        out["inputs"] = {name: item.to_dict() for name, item in self.inputs.items()}
        out["outputs"] = {name: item.to_dict() for name, item in self.outputs.items()}
        if self.stages:
            out["stages"] = {
                name: {
                    "from": list(stage.given),
                    "to": list(stage.to),
                    **stage.model_dump(exclude_defaults=True, exclude={"given", "to", "by"}, mode="json"),
                    **({} if stage.by is None else {"by": _named(stage.by)}),
                }
                for name, stage in self.stages.items()
            }
            out["regime"] = self.regime
        for section in ("goal", "objective", "trunk", "train"):
            part = getattr(self, section)
            values = {} if part is None else part.model_dump(exclude_defaults=True)
            if values.get("priors") == []:  # its default, which pydantic takes for a setting
                del values["priors"]
            if values:
                out[section] = values
        return out

    def to_yaml(self) -> str:
        """The recipe as YAML that `load` reads back to an equal recipe."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def replace(self, **settings: Any) -> Self:
        """A copy with dotted fields changed: `recipe.replace(**{"train.seed": 1, "data.max_bad": "5%"})`."""
        values: dict[str, Any] = self.to_dict()
        values["data"] = {name: getattr(self.data, name) for name in values["data"]}
        for section in ("inputs", "outputs"):  # the class itself: a name would not find one from outside the package
            values[section] = {
                name: {**item.to_dict(), "type": type(item)} for name, item in getattr(self, section).items()
            }
        for name, stage in self.stages.items():
            if stage.by is not None:
                values["stages"][name]["by"] = stage.by
        if self.objective.priors:
            values["objective"]["priors"] = list(self.objective.priors)
        for path, value in settings.items():
            _set(values, path.split("."), value, path)
        return type(self)(**values)


def seconds_of(budget: float | str | None) -> float | None:
    """A time limit as a recipe writes it, in seconds. RecipeError for what is none."""
    try:
        return None if budget is None else Train(budget=budget).budget
    except ValidationError:
        raise refusal(
            field="budget", got=budget, allowed="a duration above 0 such as 90s, 5m or 1h", fix="give such a value"
        ) from None


def declare(value: Any, *, where: str, role: Role, name: str) -> Modality:
    """A modality from its short form ('audio'), its mapping ({type: audio, rate_hz: 8000}), its class or itself."""
    if isinstance(value, type) and issubclass(value, Modality):
        value = value()
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Modality):
        require(
            isinstance(value, Mapping),
            field=where,
            got=value,
            allowed="a type name or a mapping with 'type'",
            fix=f"write {name}: {{type: {next(iter(TABLE))}}}",
        )
        fields = dict(value)
        kind = fields.pop("type", None)
        require(
            kind is not None,
            field=f"{where}.type",
            got=None,
            allowed=f"one of {', '.join(TABLE)}",
            fix="say what kind of value this is",
        )
        if isinstance(kind, type) and issubclass(kind, Modality):
            found: type[Modality] = kind
        else:
            found = modality_class(str(kind), where=f"{where}.type")
        value = build(found, fields, where, role)
    declared: Modality = value
    declared.check_role(role, name)
    return declared


def _named(function: Any) -> str:
    """How a function is remembered."""
    if isinstance(function, Elsewhere):
        return function.name
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__qualname__)}"


def _with_stage_outputs(values: Mapping[str, Any]) -> dict[str, Any]:
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


def parse(text: str, *, where: str) -> dict[str, Any]:
    """YAML or JSON text as plain values; anchors are refused, since a page of them can fill the memory."""
    try:
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            if isinstance(token, yaml.AliasToken):
                raise RecipeError(f"{where}: YAML anchors and aliases are not read. Fix: write the value out in full.")
        values = _with_on(yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError) as wrong:
        mark = getattr(wrong, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(wrong, "problem", None) or type(wrong).__name__
        raise RecipeError(
            f"{where}{line}: not valid YAML: {reason}. Fix: check the indentation and the quotes there."
        ) from None
    require(
        isinstance(values, dict),
        field=where,
        got=values,
        allowed="a mapping with data, inputs and outputs",
        fix="see 'endwise schema' or run 'endwise init'",
    )
    return dict(values)


def _with_on(values: Any) -> Any:
    """YAML 1.1 reads the name `on` as true, and a field of outputs that lie on an input has that name."""
    if isinstance(values, dict):
        return {"on" if name is True else name: _with_on(value) for name, value in values.items()}
    return [_with_on(value) for value in values] if isinstance(values, list) else values


def json_schema() -> dict[str, Any]:
    """The published JSON Schema of a recipe: what editors complete and programs check against."""
    from pydantic import TypeAdapter

    def declaration_schema(role: Role) -> dict[str, Any]:
        kinds = []
        for name in TABLE:
            cls = modality_class(name)
            if role not in cls.roles:
                continue
            schema = _written_out(TypeAdapter(cls).json_schema())
            fields = {
                item: spec
                for item, spec in schema["properties"].items()
                if cls.__dataclass_fields__[item].metadata.get("role") in (None, role)
            }
            for item, spec in fields.items():
                spec["description"] = cls.__dataclass_fields__[item].metadata.get("help", "")
            kinds.append(
                {
                    "type": "object",
                    "title": name,
                    "description": (cls.__doc__ or "").strip().split("\n")[0],
                    "properties": {"type": {"const": name}, **fields},
                    "required": ["type"],
                    "additionalProperties": False,
                }
            )
        names = [name for name in TABLE if role in modality_class(name).roles]
        return {"type": "object", "minProperties": 1, "additionalProperties": {"anyOf": [{"enum": names}, *kinds]}}

    def part(cls: type[Part]) -> dict[str, Any]:
        schema = cls.model_json_schema()
        schema.pop("title", None)
        return _written_out(schema)

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "endwise recipe",
        "type": "object",
        "additionalProperties": False,
        "required": ["data", "inputs", "outputs"],
        "properties": {
            "version": {"const": RECIPE_VERSION},
            "name": {"type": ["string", "null"]},
            "data": {"anyOf": [{"type": "string"}, _lenient(part(Data))]},
            "from_run": {"anyOf": [{"type": "string"}, part(FromRun), {"type": "null"}]},
            "inputs": declaration_schema(INPUT_ROLE),
            "outputs": declaration_schema(OUTPUT_ROLE),
            "stages": {
                "type": "object",
                "additionalProperties": _declaring(part(Stage), declaration_schema(OUTPUT_ROLE)),
            },
            "regime": {"enum": list(REGIMES)},
            "goal": {"anyOf": [part(Goal), {"type": "null"}]},
            "objective": _with_priors(part(Objective)),
            "trunk": part(Trunk),
            "train": _lenient(part(Train)),
        },
    }


def _written_out(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with what it defines in the place of references, whose addresses would be looked for in the whole document."""
    inside = schema.pop("$defs", {})

    def written_out(value: Any) -> Any:
        if isinstance(value, Mapping) and "$ref" in value:
            return inside[value["$ref"].rpartition("/")[2]]
        if isinstance(value, Mapping):
            return {name: written_out(item) for name, item in value.items()}
        return [written_out(item) for item in value] if isinstance(value, list) else value

    found: dict[str, Any] = written_out(schema)
    return found


def _declaring(stage: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    """The schema of a stage, whose outputs may be named or declared."""
    named = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    stage["properties"]["from"] = {**named, "description": stage["properties"]["from"]["description"]}
    del stage["properties"]["by"]  # no file can hold it
    stage["properties"]["shares"] = {**named, "description": stage["properties"]["shares"]["description"]}
    stage["properties"]["to"] = {
        "anyOf": [*named["anyOf"], outputs],
        "description": stage["properties"]["to"]["description"],
    }
    return stage


def _with_priors(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of the objective with the priors of the package."""
    from pydantic import TypeAdapter

    kinds = []
    for name, cls in BUILT_IN.items():
        fields = TypeAdapter(cls).json_schema()
        for item, spec in fields["properties"].items():
            spec["description"] = cls.__dataclass_fields__[item].metadata["help"]
        kinds.append(
            {
                "type": "object",
                "title": name,
                "description": " ".join((cls.__doc__ or "").split()),
                "properties": {"type": {"const": name}, **fields["properties"]},
                "required": ["type", *fields["required"]],
                "additionalProperties": False,
            }
        )
    description = schema["properties"]["priors"]["description"]
    schema["properties"]["priors"] = {
        "type": "array", "default": [], "description": description, "items": {"anyOf": kinds}
    }  # fmt: skip
    schema.pop("$defs", None)
    return schema


def _lenient(schema: dict[str, Any]) -> dict[str, Any]:
    """Fields that also take text ('1%', '5m', a column) say so."""
    for name in ("max_bad", "budget"):
        if name in schema["properties"]:
            spec = schema["properties"][name]
            kept = {key: spec[key] for key in ("default", "description") if key in spec}
            schema["properties"][name] = {"type": ["number", "string", "null"], **kept}
    if "gather" in schema["properties"]:
        schema["properties"]["gather"]["anyOf"].insert(0, {"type": "string"})
    return schema


def _is_columns(value: Any) -> bool:
    """Whether this is a table {column: cells} and no `data` section, whatever its columns are called: a section has
    tables in its sources (a list of rows, a frame) and a name or a number in all other fields."""
    if not isinstance(value, Mapping) or not value:
        return False
    if not all(_is_column(cells) for cells in value.values()):
        return False
    return any(key not in SOURCES for key in value) and not all(
        isinstance(cells, list | tuple) and cells and isinstance(cells[0], Mapping) for cells in value.values()
    )


def _is_column(cells: Any) -> bool:
    """A list, an array or a series; not a text, and not a frame of several columns."""
    sized = hasattr(cells, "__len__") and not isinstance(cells, str | bytes | Mapping)
    return sized and not hasattr(cells, "columns")


def _rebased(data: Any, folder: Path) -> Any:
    def rebase(value: Any) -> Any:
        if isinstance(value, str) and "://" not in value and not Path(value).is_absolute():
            return str(folder / value)
        return value

    if isinstance(data, Mapping):
        return {
            name: {key: rebase(item) for key, item in value.items()}
            if name == "tables" and isinstance(value, Mapping)
            else rebase(value)
            if name in SOURCES
            else value
            for name, value in data.items()
        }
    return rebase(data)


def _rebased_weights(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Relative folders of pretrained weights are the recipe's own, as its data is."""
    found = dict(values)
    for section in ("inputs", "outputs"):
        fields = values.get(section)
        if isinstance(fields, Mapping):
            found[section] = {
                name: {**item, "pretrained": rebased(item["pretrained"], folder)}
                if isinstance(item, Mapping) and "pretrained" in item
                else item
                for name, item in fields.items()
            }
    return found


def _plain_source(value: Any) -> Any:
    """A frame or a list in memory cannot be written down: its kind is, and `data` must be given again to use it."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Part):
        return value.model_dump(exclude_defaults=True)
    if isinstance(value, Mapping) and not _is_columns(value):
        return {name: _plain_source(item) for name, item in value.items()}
    return f"memory:{type(value).__name__}"


def _set(values: dict[str, Any], path: list[str], value: Any, whole: str) -> None:
    head, *rest = path
    if not rest:
        values[head] = value
        return
    inner = values.get(head)
    if inner is None:
        inner = values[head] = {}
    if isinstance(inner, str) and head not in ("name",):
        inner = values[head] = {"type": inner}
    require(isinstance(inner, dict), field=whole, got=value, allowed="the path of a field", fix="see 'endwise schema'")
    _set(inner, rest, value, whole)


def _in_our_words(wrong: ValidationError, values: Mapping[str, Any]) -> RecipeError:
    """Pydantic's first complaint as one of our refusals; where a field is missing and another one beside it is none, the
    latter, whose name is most likely the misspelt one."""
    first = _misspelt(wrong.errors())
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, RecipeError):
        return inner
    where = ".".join(str(part) for part in first["loc"]) or "recipe"
    if first["type"] == "extra_forbidden":
        section: Any = Stage if first["loc"][0] == "stages" else Recipe
        for part in first["loc"][:-1]:
            parts = {
                "data": Data,
                "from_run": FromRun,
                "goal": Goal,
                "objective": Objective,
                "trunk": Trunk,
                "train": Train,
                "gather": Gather,
                "windows": Windows,
                "split": Borders,
                "Borders": Borders,
            }
            section = parts.get(str(part), section)
        names = [field.alias or name for name, field in section.model_fields.items()]
        meant = nearest(str(first["loc"][-1]), names)
        return RecipeError(
            f"{where} = {str(first['input'])[:80]!r} is not allowed: there is no such field. "
            f"Fix: {f'did you mean {meant!r}?' if meant else 'use one of: ' + ', '.join(names)}"
        )
    if first["type"] == "missing":
        section = where.rpartition(".")[0]
        fix = f"write {_example(section)}" if _example(section) else "give it"
        if not section:
            fix = "every recipe says data, inputs and outputs; 'endwise init' proposes one"
        return RecipeError(f"{where} is missing. Fix: {fix}.")
    message, fix = first["msg"].removeprefix("Value error, ").removeprefix("Input should be "), "give such a value"
    if first["type"] in ("dict_type", "model_type", "model_attributes_type"):
        message, fix = "a mapping of names", f"write {_example(where) or 'name: value'}"
    elif first["type"] == "tuple_type":
        message, fix = "a name or a list of names", "write it so, such as [words]"
    made = refusal(field=where, got=first["input"] if where != "recipe" else dict(values), allowed=message, fix=fix)
    return RecipeError(str(made))


def _misspelt(complaints: Sequence[Any]) -> Any:
    """The complaint that says most: the first, or that of a field that nobody knows beside one that is missing."""
    first = complaints[0]
    beside = [
        item for item in complaints if item["type"] == "extra_forbidden" and item["loc"][:-1] == first["loc"][:-1]
    ]
    return beside[0] if first["type"] == "missing" and beside else first


def _example(where: str) -> str:
    """How a section is written, where it is a mapping that people write by hand; '' for another."""
    section, _, name = where.partition(".")
    if section == "stages":
        return f"{name or 'stages: {hear'}: {{from: recording, to: words}}{'' if name else '}'}"
    return {
        "goal": "goal: {output: words, metric: wer, direction: min}",
        "from_run": "from_run: runs/earlier",
        "train": "train: {budget: 5m}",
        "objective": "objective: {weighting: fixed}",
        "trunk": "trunk: {depth: 2}",
    }.get(section, "")


__all__ = [
    "RECIPE_VERSION",
    "Borders",
    "Data",
    "FromRun",
    "Goal",
    "Objective",
    "Recipe",
    "Stage",
    "Train",
    "Trunk",
    "Windows",
    "declare",
    "in_order",
    "json_schema",
    "owner",
    "parse",
    "seconds_of",
    "standing",
]


def dumps(recipe: Recipe) -> str:
    """The recipe as JSON text."""
    return json.dumps(recipe.to_dict(), indent=1, ensure_ascii=False)
