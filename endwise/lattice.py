"""A field as a value: numbers on a regular grid, with their units. Numpy and the standard library only.

Here: what an answer of `type: field` is, how it is saved and drawn. Not here: reading one (modalities/field).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from endwise.shades import png_uri, shades

SIDE_PX = 128  # of the drawing of one channel
LINE_PX = 24  # the height of a one-dimensional channel: a coloured band
GAP_PX = 4
FLOOR = 1e-3  # of a channel's scale in training: a field below it is not divided by


@dataclass(frozen=True, eq=False, repr=False)
class Lattice:
    """Numbers float32 [channel, *grid] on a regular grid of one to three axes, and a unit for each channel ('' where none
    is known). numpy takes it as an array; in JSON it is nested lists, which may be given as an input again."""

    suffixes: ClassVar[tuple[str, ...]] = (".npy",)  # of files that it can be saved as

    values: np.ndarray
    units: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, *grid)."""
        found: tuple[int, ...] = self.values.shape
        return found

    def save(self, path: str | Path) -> Path:
        """Write the array as .npy; its path."""
        place = Path(path)
        with place.open("wb") as file:
            np.save(file, self.values, allow_pickle=False)
        return place

    def to_json(self) -> list[Any]:
        """Nested lists, channels outside."""
        found: list[Any] = self.values.tolist()
        return found

    def drawn(self, ends: Sequence[tuple[float, float]] | None = None) -> str:
        """A PNG in a data URI: the channels side by side, each from its smallest number (dark) to its largest (light), or between
        its own of these ends; of three axes the middle slice, of one axis a band."""
        parts = []
        for number, channel in enumerate(self.values):
            table = channel[len(channel) // 2] if channel.ndim == 3 else np.atleast_2d(channel)
            if channel.ndim == 1:
                table = np.repeat(table, max(1, round(LINE_PX * table.shape[1] / SIDE_PX)), axis=0)
            low, high = (float(channel.min()), float(channel.max())) if ends is None else ends[number]
            parts.append(shades(table, low, high, side_px=SIDE_PX))
            parts.append(np.full((parts[-1].shape[0], GAP_PX, 3), 255, np.uint8))
        return png_uri(np.concatenate(parts[:-1], axis=1))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype) if copy or dtype is not None else self.values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lattice) and self.units == other.units and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash((self.units, self.values.shape, self.values.tobytes()))

    def __repr__(self) -> str:
        grid = " x ".join(str(count) for count in self.shape[1:])
        unit = f" in {', '.join(self.units)}" if any(self.units) else ""
        return f"Lattice({self.shape[0]} channel{'s' if self.shape[0] > 1 else ''} on {grid}{unit})"

    def _repr_html_(self) -> str:
        return f'<img src="{self.drawn()}" alt="{self!r}">'
