"""What a look at a sample of one column has found. Not here: looking (__init__.py)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

TIME_NAMES = ("time", "timestamp", "date", "datetime", "created_at", "recorded_at", "date_time", "event_time")


@dataclass(slots=True)
class Found:
    """What a sample of one column looks like."""

    name: str
    kind: str  # a modality's type, or 'identifier', 'constant', 'empty', 'series', 'unknown'
    why: str
    count: int = 0
    distinct: int = 0
    repeats: float = 0.0  # rows for each different value, over the whole column where that is held
    settings: dict[str, Any] = field(default_factory=dict)
    cells: list[Any] = field(default_factory=list)
    doubt: str | None = None  # a question to ask when the column is used

    @property
    def plain(self) -> str:
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")

    @property
    def stem(self) -> str:
        """The plain name of what it names: 'customer' of 'Customer ID'."""
        return re.sub(r"_?(id|name|no|nr|number|code|key)$", "", self.plain)

    def called(self, names: Sequence[str]) -> bool:
        return self.plain in names


__all__ = ["TIME_NAMES", "Found"]
