"""What tables that rows look around in give away, and what is unclear about them. Not here: reading them (index.py)."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from endwise.errors import refusal
from endwise.modalities.category import class_name

NAMED = 3  # ids in a message
Said = tuple[frozenset[str], str]  # whom it is about, and what is said of them


def refuse_answers(
    told: str, columns: Sequence[str], about: Sequence[str], table: Any, rows: Sequence[Any], at: Sequence[str],
    answers: Collection[str],
) -> None:  # fmt: skip
    """RecipeError where the columns that are taken from a table tell the answers of the rows themselves. told: the field
    that lists these columns; about, at: the columns that name the nodes, in the table and in the rows."""
    for column in columns:
        if column in answers and _all_there(rows, at, table, about, column):
            raise refusal(
                field=f"Graph.{told}", got=column,
                allowed=f"columns that are no answers: {column!r} is an output, and every row's own stands in {table.name}",
                fix=f"remove {column!r} from {told}, or take a table that has it of other rows alone",
            )  # fmt: skip


def unclear_kinds(table: Any, ends: Sequence[str]) -> list[tuple[str, str]]:
    """(message, fix) where some ids are at both ends and others are not: people who know people, or user 3 and shop 3?"""
    first, second = ({class_name(cell) for cell in table.column(name) if cell is not None} for name in ends)
    both = first & second
    if not both or first == second:
        return []
    named = ", ".join(sorted(both)[:NAMED]) + (" ..." if len(both) > NAMED else "")
    return [(
        f"{len(both)} of {len(first | second)} ids of {table.name} are in {ends[0]!r} and in {ends[1]!r} ({named}), and each is "
        "taken for one node", "write one_kind: true if that is so; otherwise let the ids differ (u3, s3) and write one_kind: false",
    )]  # fmt: skip


def _all_there(rows: Sequence[Any], at: Sequence[str], table: Any, about: Sequence[str], column: str) -> bool:
    if not all(name in one.columns for one in rows for name in (*at, column)):
        return False
    wanted = {said for one in rows for said in _said(one, at, column)}
    return bool(wanted) and wanted <= set(_said(table, about, column))


def _said(table: Any, about: Sequence[str], column: str) -> Iterator[Said]:
    cells = zip(*(table.column(name) for name in about), strict=True)
    for names, answer in zip(cells, table.column(column), strict=True):
        if answer is not None and None not in names:
            yield frozenset(map(str, names)), str(answer)
