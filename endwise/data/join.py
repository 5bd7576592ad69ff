"""Columns that are one value together: a box's class and four numbers.

A field that names several columns (`Modality.reads_columns`) is given a column of its own, whose cells are mappings from
their names to their cells. Not here: which columns belong together (the declarations), rows that do (gather.py), and
windows over the channels of a series (windows.py).
"""

from collections.abc import Mapping, Sequence

from endwise.data.columns import Column, JoinedColumn
from endwise.data.table import Table
from endwise.errors import DataError, refusal, unknown_name
from endwise.modalities.base import Modality


def joined(table: Table, fields: Mapping[str, Modality]) -> Table:
    """The table with one more column for every field that is made of several, called as the field is. Of a field's
    columns all have to be there, or none: whether a table may lack the field is the caller's to say. DataError."""
    more: dict[str, Column] = {}
    for name, item in fields.items():
        columns = item.reads_columns()
        if any(column in table.columns for column in columns):
            _check(table, name, columns)
            more[name] = JoinedColumn({column: table.column_of(column) for column in columns})
    return table.with_columns(more) if more else table


def _check(table: Table, name: str, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in table.columns:
            where = f"{name}.columns (in {table.name})"
            raise unknown_name(field=where, got=column, names=table.columns, error=DataError)
    if name in table.columns:
        raise refusal(
            field=f"{name}.columns", got=list(columns), allowed=f"a field that is not called as a column of {table.name}",
            fix=f"rename the field: {name!r} is a column of its own", error=DataError,
        )  # fmt: skip


__all__ = ["joined"]
