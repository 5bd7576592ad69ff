"""What a catalogue says about its items: a column of content is read, fitted and transformed by the modality of its kind, once,
and travels in the contract, so that a saved model can tell items apart that nobody has bought yet.

Here: from a table to what is stored, and back to arrays. Not here: the network that reads them (network.py). An exported
bundle needs none of it: its graph holds the items' vectors.
"""

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from endwise.batch import Ragged
from endwise.errors import BadValue, DataError, refusal, require, unknown_name
from endwise.modalities import modality_class
from endwise.modalities.base import INPUT_ROLE, Contract, Modality, build

KINDS = ("text", "image", "audio", "number", "category", "boolean", "date", "tags", "series", "volume", "video")
MOST_BYTES = 256 << 20  # of one column of content: it travels in the contract
FIELD = "Items.content"


def declared(content: Mapping[str, Any]) -> dict[str, Modality]:
    """{column: its modality} of {column: a type name, or a mapping with `type`}. RecipeError."""
    found = {}
    for column, given in content.items():
        where = f"{FIELD}.{column}"
        fields = dict(given) if isinstance(given, Mapping) else {"type": given}
        kind = fields.pop("type", None)
        if kind not in KINDS:
            raise unknown_name(field=f"{where}: type", got=str(kind), names=KINDS)
        item = build(modality_class(kind), fields, where, INPUT_ROLE)
        item.check_role(INPUT_ROLE, column)
        found[str(column)] = item
    return found


def ids_of(table: Any, key: str, name_of: Any) -> list[str]:
    """The items of a catalogue, a row each. DataError where a row has none, or one that another row has."""
    if key not in table.columns:
        raise unknown_name(
            field=f"Items.key: the column of {table.name} that names its items", got=key, names=table.columns
        )
    found: dict[str, int] = {}
    for row, cell in enumerate(table.column(key)):
        where = f"{table.origin(row)}, column {key!r}"
        require(cell is not None, field=where, got=None, allowed="an item in every row of the catalogue",
                fix="name it, or remove the row", error=DataError)  # fmt: skip
        try:
            name = name_of(cell)
        except BadValue as wrong:
            raise DataError(f"{where}: {wrong}") from None
        require(name not in found, field=where, got=name, allowed="every item once in a catalogue", error=DataError,
                fix=f"remove this row or {table.origin(found.get(name, 0))}")  # fmt: skip
        found[name] = row
    return list(found)


def contents(
    table: Any, content: Mapping[str, Any], rows: Sequence[int | None], fitted: Sequence[int]
) -> tuple[Any, ...]:
    """What is known of each item, column by column, as JSON has it. rows: the catalogue's row of each item. fitted: the places
    of those that contracts are fitted on, the ones that training has. DataError with row and column."""
    return tuple(_column(table, column, item, rows, fitted) for column, item in declared(content).items())


def _column(table: Any, column: str, item: Modality, rows: Sequence[int | None], fitted: Sequence[int]) -> Any:
    if column not in table.columns:
        raise unknown_name(field=f"{FIELD} (in {table.name})", got=column, names=table.columns)
    cells = table.column(column)
    values: list[np.ndarray | None] = []
    for row in rows:
        raw = None if row is None else cells[row]
        raw = None if isinstance(raw, float) and math.isnan(raw) else raw
        try:
            values.append(None if raw is None else item.read(raw, table.fetch))
        except BadValue as wrong:
            raise DataError(f"{table.origin(row or 0)}, column {column!r}: {wrong}") from None
    known = [value for place in fitted if (value := values[place]) is not None]
    require(bool(known), field=f"{FIELD}.{column}", got="no item of the training rows with a value", error=DataError,
            allowed="at least one", fix="look at the column's name, or remove it")  # fmt: skip
    standing = item.beside({column: item}, {})
    contract = standing.fit(known, missing=sum(value is None for value in values), role=INPUT_ROLE)
    taken = [None if value is None else np.asarray(standing.transform(value, contract)) for value in values]
    size = sum(value.nbytes for value in taken if value is not None)
    if size > MOST_BYTES:
        raise refusal(
            field=f"{FIELD}.{column}", got=f"{size >> 20} MB", allowed=f"at most {MOST_BYTES >> 20} MB in all items",
            fix="read it smaller (side_px: of pictures), or leave it out", error=DataError,
        )  # fmt: skip
    blank = standing.blank(contract)
    shapes = [None if value is None else list(value.shape) for value in taken]
    data = b"".join(np.ascontiguousarray(value).tobytes() for value in taken if value is not None)
    found = {
        "column": column, "declared": standing.to_dict(), "contract": contract.to_dict(), "dtype": blank.dtype.str,
        "shapes": shapes, "data": base64.b64encode(zlib.compress(data)).decode(),
    }  # fmt: skip
    return json.loads(json.dumps(found))


def opened(found: Mapping[str, Any]) -> tuple[Modality, Contract, Ragged, np.ndarray]:
    """(modality, its contract, the value of every item, which items have one) of what is stored of a column."""
    fields = dict(found["declared"])
    item = build(modality_class(fields.pop("type")), fields, FIELD)
    contract = item.contract_class.from_dict(found["contract"])
    data, blank = zlib.decompress(base64.b64decode(found["data"])), item.blank(contract)
    values, start = [], 0
    for shape in found["shapes"]:
        if shape is None:
            values.append(blank)
            continue
        count = int(np.prod(shape, dtype=np.int64))
        values.append(np.frombuffer(data, found["dtype"], count, start).reshape(shape))
        start += count * np.dtype(found["dtype"]).itemsize
    return item, contract, Ragged.stack(values, item.axes), np.array([shape is not None for shape in found["shapes"]])


__all__ = ["KINDS", "contents", "declared", "ids_of", "opened"]
