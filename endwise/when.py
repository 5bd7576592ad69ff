"""What a cell says as a time, and which kind of time that is. Not here: dates as values to learn (modalities/date.py)."""

import datetime as dt
import math
from typing import Any


def time_of(cell: Any) -> tuple[str | None, float]:
    """(what kind of time a cell is, the time in seconds or in its own count); None where it is none."""
    if isinstance(cell, str):
        text = cell.strip()
        try:
            cell = float(text)
        except ValueError:
            cell = _date(text)
    if isinstance(cell, int | float) and not isinstance(cell, bool) and math.isfinite(cell):
        return "number", float(cell)
    if isinstance(cell, dt.date):
        moment = cell if isinstance(cell, dt.datetime) else dt.datetime(cell.year, cell.month, cell.day)
        if moment.tzinfo is not None:
            return "date with time zone", moment.timestamp()
        return "date", moment.replace(tzinfo=dt.UTC).timestamp()
    return None, 0.0


def _date(text: str) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return None


__all__ = ["time_of"]
