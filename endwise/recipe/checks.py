"""Checks across the recipe of what its fields are called, which columns they read, and which numbers go together."""

import re
from typing import TYPE_CHECKING

from endwise.errors import require, unknown_name
from endwise.recipe.part import NAME

if TYPE_CHECKING:
    from endwise.recipe.declaration import Recipe


def check_names(recipe: "Recipe") -> None:
    """Names that can be written everywhere, and that no other field has."""
    for name in [*recipe.inputs, *recipe.outputs]:
        require(
            isinstance(name, str) and bool(NAME.match(name)),
            field="field name",
            got=name,
            allowed="letters, digits, spaces, '_' and '-', not starting with a digit",
            fix="give the field such a name and say column: for the column's own",
        )
    for section in (recipe.inputs, recipe.outputs):
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
    for name in recipe.inputs:
        require(
            name not in recipe.outputs,
            field=f"outputs.{name}",
            got=name,
            allowed="a name no input has",
            fix="an answer cannot be given as an input; rename one and say column: if both read the same column",
        )


def check_outputs(recipe: "Recipe") -> None:
    """What is answered is no column that decides about rows, and the goal is one of the answers."""
    reserved = {recipe.data.split_column, recipe.data.group, recipe.data.weight} - {None}
    for name, declared in recipe.outputs.items():
        require(
            declared.of_row > 0 or (declared.column or name) not in reserved,
            field=f"outputs.{name}.column",
            got=declared.column or name,
            allowed="a column that is not data.split, data.group or data.weight",
            fix="an output column cannot decide the split or the weight",
        )
    if recipe.goal is not None and recipe.goal.output not in recipe.outputs:
        raise unknown_name(field="goal.output", got=recipe.goal.output, names=recipe.outputs)


def check_numbers(recipe: "Recipe") -> None:
    """Numbers that do not go together."""
    size = recipe.trunk
    if size.width is not None and size.heads is not None:
        require(
            size.width % size.heads == 0,
            field="trunk.heads",
            got=size.heads,
            allowed=f"a divisor of trunk.width = {size.width}",
            fix="change one of the two",
        )
    given = [name for name in ("steps", "epochs") if getattr(recipe.train, name) is not None]
    require(
        len(given) < 2,
        field="train.epochs",
        got=recipe.train.epochs,
        allowed="steps or epochs, not both",
        fix="remove one",
    )
