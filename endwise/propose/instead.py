"""What a table of transactions may be meant for instead of a plain table: purchases in order are histories, and a row that joins
two is an edge for later rows.

By names and by how often values return, as all of a proposal; nothing is offered where a column that it needs has gaps. Not here:
the plain recipe (__init__.py), what histories and graphs are (data/gather.py, modalities/items, modalities/graph).
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from endwise.data.table import Table
from endwise.propose.found import TIME_NAMES, Found
from endwise.recipe import NAME, Recipe

MOMENT_NAMES = (*TIME_NAMES, "unix_time", "when", "day", "step", "position", "order", "t_dat", "invoicedate", "invoice_date",
                "order_date", "purchase_date", "transaction_date")  # fmt: skip
WHO_NAMES = ("user", "customer", "client", "member", "visitor", "buyer", "shopper", "reader", "listener", "viewer", "player",
             "session", "household", "account", "card", "person", "patient", "student")  # fmt: skip
ITEM_NAMES = ("item", "article", "product", "movie", "film", "song", "track", "artist", "book", "game", "sku", "asin", "isbn",
              "stock", "page", "course", "video", "recipe", "title", "exercise")  # fmt: skip
FROM_NAMES = (
    "source",
    "src",
    "sender",
    "from",
    "payer",
    "caller",
    "origin",
    "orig",
    "nameorig",
    "from_account",
    "follower",
)
TO_NAMES = ("target", "dst", "dest", "destination", "receiver", "recipient", "to", "payee", "callee", "namedest", "to_account",
            "followed")  # fmt: skip
PLACE_NAMES = ("merchant", "shop", "store", "seller", "vendor", "terminal")
FEWEST_IDS, MORE_IDS = 5, 20  # of each end; of one of the two: fewer are classes, as languages from and to
RETURNS = 1.25  # rows for each id, at least ...
HISTORY = 2.0  # ... and for each of those who have a history


@dataclass(frozen=True, slots=True)
class Instead:
    """Another recipe for the same table, and the question whose yes asks for it."""

    question: str
    recipe: Recipe


def others(table: Table, found: Sequence[Found], plain: Recipe) -> list[Instead]:
    """What this table may be meant for besides the plain recipe that was proposed."""
    whole = isinstance(plain.data.path, str | os.PathLike) and all(
        item.kind not in ("image", "audio", "volume") for item in found
    )
    when = next((item for item in found if whole and _tells_when(table, item)), None)
    if when is None:
        return []
    made = [_history(table, found, when, plain), _graph(table, found, when, plain)]
    return [item for item in made if item is not None]


def ends(found: Sequence[Found]) -> tuple[Found, Found] | None:
    """The two columns that name whom a row joins, where their names and values say so."""
    for first, second in ((FROM_NAMES, TO_NAMES), (WHO_NAMES, PLACE_NAMES), (FROM_NAMES, PLACE_NAMES)):
        one, other = (next((item for item in found if _names(item, names)), None) for names in (first, second))
        if one is not None and other is not None and max(one.distinct, other.distinct) >= MORE_IDS:
            return one, other
    return None


def _names(item: Found, names: Collection[str]) -> bool:
    called = item.plain in names or item.stem in names
    return called and item.distinct >= FEWEST_IDS and item.repeats >= RETURNS and all(map(_is_id, item.cells))


def _is_id(cell: Any) -> bool:
    if isinstance(cell, str):
        return len(cell.split()) < 2 and not _fraction(cell)
    return cell is None or (isinstance(cell, int) and not isinstance(cell, bool))


def _fraction(text: str) -> bool:
    return text.replace(".", "", 1).isdigit() and "." in text


def _tells_when(table: Table, item: Found) -> bool:
    """A time that every row has: a date as it is, or a number."""
    read = (item.kind == "date" and "format" not in item.settings) or item.kind in ("number", "identifier", "category")
    if not read or item.plain not in MOMENT_NAMES or item.distinct < 3 or not _whole(table, item):
        return False
    return item.kind == "date" or all(_is_number(cell) for cell in item.cells)


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _whole(table: Table, *items: Found) -> bool:
    return all(cell is not None for item in items for cell in table.column(item.name))


# ---- purchases -------------------------------------------------------------------------------------------------------


def _history(table: Table, found: Sequence[Found], when: Found, plain: Recipe) -> Instead | None:
    """What each of them did before, and a ranking of what comes next."""
    who = next((item for item in found if _names(item, WHO_NAMES) and item.repeats >= HISTORY), None)
    what = next((item for item in found if item is not who and _is_item(item)), None)
    if who is None or what is None or not _whole(table, who, what):
        return None
    earlier = _free("history", table.columns)
    gather = {"by": who.name, "order": when.name, "earlier": {earlier: what.name}}
    data = {"path": plain.data.path, **_sides(plain), "gather": gather}
    answer = what.name if NAME.match(what.name) else "next"
    question = f"is the next {what.name!r} of each {who.name!r} to be foreseen, from those before it?"
    column = {} if answer == what.name else {"column": what.name}
    return Instead(question, Recipe(
        version=1, name=plain.name, data=data, inputs={earlier: {"type": "items"}},
        outputs={answer: {"type": "items", **column}},
    ))  # fmt: skip


def _is_item(item: Found) -> bool:
    """Ids of things, or their titles."""
    called = item.plain in ITEM_NAMES or item.stem in ITEM_NAMES
    ids = item.kind in ("category", "text", "number", "identifier") and not any(
        isinstance(cell, float | list) for cell in item.cells
    )
    return called and ids and item.distinct >= FEWEST_IDS and item.repeats >= RETURNS


# ---- edges -----------------------------------------------------------------------------------------------------------


def _graph(table: Table, found: Sequence[Found], when: Found, plain: Recipe) -> Instead | None:
    """What both ends of a row did before it."""
    joined = ends(found)
    outputs = {item.column or name for name, item in plain.outputs.items()}
    if joined is None or outputs & {when.name, *(item.name for item in joined)} or not _whole(table, *joined):
        return None
    pair, taken = [item.name for item in joined], {when.name, *(item.name for item in joined)}
    inputs = {name: item for name, item in plain.inputs.items() if (item.column or name) not in taken}
    around = {
        "type": "graph", "at": pair, "edges": "rows", "ends": pair, **_one_kind(table, joined), "time": when.name,
        "numbers": [item.column or name for name, item in inputs.items() if item.type == "number"],
        "classes": [item.column or name for name, item in inputs.items() if item.type in ("category", "boolean")],
    }  # fmt: skip
    sides = _sides(plain)
    ordered = {} if sides or "split" in table.columns else {"time": when.name}
    told = " and ".join(map(repr, outputs))
    question = f"does {told} depend on what {pair[0]!r} and {pair[1]!r} of a row did before it?"
    return Instead(question, Recipe(
        version=1, name=plain.name, data={"path": plain.data.path, **sides, **ordered, "tables": {"rows": plain.data.path}},
        inputs={_free("around", [*inputs, *plain.outputs, *table.columns]): around, **inputs}, outputs=dict(plain.outputs),
    ))  # fmt: skip


def _one_kind(table: Table, joined: Sequence[Found]) -> dict[str, bool]:
    """Shops are no customers; where an id is at both ends, `check` asks what is meant."""
    first, second = ({str(cell) for cell in table.column(item.name)} for item in joined)
    return {"one_kind": False} if _names(joined[1], PLACE_NAMES) and not first & second else {}


# ---- both ------------------------------------------------------------------------------------------------------------


def _sides(plain: Recipe) -> dict[str, Any]:
    """The official split, where a column says it under another name."""
    return {} if plain.data.split is None else {"split": plain.data.split}


def _free(name: str, taken: Collection[str]) -> str:
    """The name, or the first of its kind that nothing else has."""
    return next(one for one in (name, *(f"{name}_{number}" for number in range(2, 10_000))) if one not in taken)


__all__ = ["Instead", "ends", "others"]
