"""The recipe itself: its sections together, checked against each other when it is made."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from endwise.errors import refusal
from endwise.modalities.base import Modality
from endwise.recipe.checks import check_names, check_numbers, check_outputs
from endwise.recipe.complaints import in_our_words
from endwise.recipe.data import Data, in_full
from endwise.recipe.fields import declarations
from endwise.recipe.part import Part
from endwise.recipe.pipeline import check_hand_offs, check_stages
from endwise.recipe.reading import read_recipe
from endwise.recipe.stages import Regime, Stage, in_order, standing, with_stage_outputs
from endwise.recipe.training import FromRun, Goal, Objective, Train, Trunk
from endwise.recipe.writing import changed, to_dict

RECIPE_VERSION = 1


class Recipe(Part):
    """The whole declaration."""

    version: int = Field(RECIPE_VERSION, description="the version of this format")
    name: str | None = Field(None, description="default: the recipe's file or folder name")
    data: Data
    from_run: FromRun | None = None
    inputs: dict[str, Modality]
    outputs: dict[str, Modality]
    stages: dict[str, Stage] = Field({}, description="a pipeline between the inputs and the outputs; none: one network")
    regime: Regime = Field(
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
            super().__init__(**with_stage_outputs(values))
        except ValidationError as wrong:
            raise in_our_words(wrong, values, Recipe) from None

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
        return in_full(value)

    @field_validator("from_run", mode="before")
    @classmethod
    def _short_from_run(cls, value: Any) -> Any:
        return {"run": str(value)} if isinstance(value, str | Path) else value

    @field_validator("inputs", "outputs", mode="before")
    @classmethod
    def _declarations(cls, value: Any, info: Any) -> Any:
        return declarations(value, str(info.field_name))

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_names(self)
        check_outputs(self)
        check_numbers(self)
        check_stages(self)
        self.objective.check(self.inputs, self.outputs)
        self._meet()
        return self

    def _meet(self) -> None:
        """The declarations see each other for the first time; the recipe is frozen for everybody else."""
        self.__dict__["outputs"] = {
            name: standing(name, self.inputs, self.outputs, self.stages) if item.of_row or item.lies else item
            for name, item in self.outputs.items()
        }
        check_hand_offs(self)
        above: dict[str | None, list[Modality]] = {}
        for item in self.outputs.values():
            if item.lies:
                above.setdefault(getattr(item, "on", None), []).append(item)
        self.__dict__["inputs"] = {
            name: item.beneath(above[name]) if name in above else item for name, item in self.inputs.items()
        }
        if all(item.of_row > 1 for item in self.outputs.values()):  # a row is answered by whatever it has
            self.__dict__["inputs"] = {name: replace(item, optional=True) for name, item in self.inputs.items()}

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
        return cls(**read_recipe(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: only what differs from the defaults, in reading order."""
        return to_dict(self)

    def to_yaml(self) -> str:
        """The recipe as YAML that `load` reads back to an equal recipe."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)

    def replace(self, **settings: Any) -> Self:
        """A copy with dotted fields changed: `recipe.replace(**{"train.seed": 1, "data.max_bad": "5%"})`."""
        return type(self)(**changed(self, settings))
