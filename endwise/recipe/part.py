"""What every section of a recipe is, how a field may be called, and how a time is written."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_\- ]*$")  # of a field, a stage or a prior
DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([a-z]?)\s*$")
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
OR_DAYS = {**SECONDS, "d": 86_400.0}


class Part(BaseModel):
    """A section of the recipe: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def in_seconds(value: Any, units: dict[str, float], allowed: str) -> Any:
    """A text such as 90s as a number of seconds; what is no text stays for pydantic to judge."""
    if not isinstance(value, str):
        return value
    found = DURATION.match(value)
    if not found or found[2] not in units:
        raise ValueError(allowed)
    return float(found[1]) * units[found[2]]
