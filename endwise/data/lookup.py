"""Rows and the tables beside them (`data.tables`): a field that looks things up there gets a column of its own, whose cells
read as raw values that need no table. So reading, storing, evaluating and exporting know nothing of it.

Not here: what is looked up (`Modality.looks_up`), opening tables (`table.py`).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from endwise.data.columns import ListColumn
from endwise.data.table import Table, open_table
from endwise.modalities.base import Modality

if TYPE_CHECKING:
    from endwise.recipe import Recipe


def looked_up(tables: Mapping[str, Table], recipe: "Recipe") -> dict[str, Table]:
    """The tables with a column for each input that looks things up; one that has such a column keeps it."""
    looking = {item.column or name: item for name, item in _looking(recipe)}
    if all(table.has(column) for table in tables.values() for column in looking):
        return dict(tables)
    others = opened(recipe)
    found = dict(tables)
    for column, item in looking.items():
        cells = item.looks_up(others)
        for name, table in tables.items():
            if cells is not None and not table.has(column):
                found[name] = found[name].with_columns({column: ListColumn(cells(table))})
    return found


def doubts(rows: Sequence[Table], recipe: "Recipe") -> list[tuple[str, str, str]]:
    """(field, message, fix) of what is unclear about the tables beside the recipe's own rows. RecipeError where they tell the
    answers. A table of rows that bring what would be looked up is not asked."""
    looking = [
        (name, item)
        for name, item in _looking(recipe)
        if type(item).doubts is not Modality.doubts
        and not all((item.column or name) in table.columns for table in rows)
    ]
    if not looking:
        return []
    others = opened(recipe)
    answers = {item.column or name for name, item in recipe.outputs.items() if not item.of_row}
    return [(name, *found) for name, item in looking for found in item.doubts(others, rows, answers)]


def _looking(recipe: "Recipe") -> list[tuple[str, Modality]]:
    return [(name, item) for name, item in recipe.inputs.items() if type(item).looks_up is not Modality.looks_up]


def opened(recipe: "Recipe") -> dict[str, Table]:
    """The tables beside those of the rows."""
    return {name: open_table(source) for name, source in recipe.data.tables.items()}


__all__ = ["doubts", "looked_up", "opened"]
