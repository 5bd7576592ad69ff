"""What a cell says as a time, and which kind of time that is. Not here: dates as values to learn (modalities/date.py)."""

import datetime as dt
import math
from typing import Any

DAY_S = 86_400.0
UNITS = (("day", DAY_S), ("h", 3_600.0), ("min", 60.0), ("s", 1.0))


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


def told_seconds(seconds: float) -> str:
    """A stretch of time in the largest unit that it fills: '1.5 h', '31 days', '3,652 days'."""
    unit, size = next(((unit, size) for unit, size in UNITS if seconds >= size), UNITS[-1])
    count = f"{seconds / size:.3g}" if seconds < 999 * size else f"{seconds / size:,.0f}"
    return f"{count} {unit}{'s' if unit == 'day' and count != '1' else ''}"


__all__ = ["DAY_S", "time_of", "told_seconds"]
