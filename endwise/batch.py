"""Ragged and Batch: what travels from the store to the network.

Both hold numpy arrays when the loader makes them and torch tensors after `to(device)`. No padding value means
anything: `sizes` says how much of each row is real, and every mask is derived from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of different sizes in one padded array.

    values: [batch, *largest]; sizes: int64 [batch, axes], the real extent of each row along each leading axis
    (axes = 0 for scalars and fixed vectors, whose values are [batch] or [batch, n]).
    """

    values: Any
    sizes: Any

    @classmethod
    def stack(cls, rows: Sequence[np.ndarray], axes: int) -> "Ragged":
        """Pad `rows` along their first `axes` axes to the largest of each; the other axes must agree. Rows of several
        dtypes become the smallest that holds them all: padding into the first one's would cut the others."""
        if axes == 0:
            return cls(np.stack(rows), np.zeros((len(rows), 0), dtype=np.int64))
        sizes = np.array([row.shape[:axes] for row in rows], dtype=np.int64).reshape(len(rows), axes)
        largest = tuple(int(n) for n in sizes.max(axis=0))
        if (sizes == sizes[0]).all():
            return cls(np.stack(rows), sizes)
        values = np.zeros(
            (len(rows), *largest, *rows[0].shape[axes:]), dtype=np.result_type(*{row.dtype for row in rows})
        )
        for index, row in enumerate(rows):
            real: tuple[slice | int, ...] = (index, *(slice(size) for size in row.shape[:axes]))
            values[real] = row
        return cls(values, sizes)

    def to(self, device: "torch.device | str") -> "Ragged":
        """The same rows as tensors on `device`."""
        return Ragged(_tensor(self.values, device), _tensor(self.sizes, device))

    def rows(self, index: Any) -> "Ragged":
        """Some of the rows (a slice or an index array), padding kept."""
        return Ragged(self.values[index], self.sizes[index])

    @property
    def padded_share(self) -> float:
        """Share of `values` that is padding (numpy only), counted and reported by the loader."""
        if self.sizes.shape[1] == 0 or self.values.size == 0:
            return 0.0
        real = float(np.prod(self.sizes, axis=1, dtype=np.float64).sum())
        slots = float(np.prod(self.values.shape[: 1 + self.sizes.shape[1]], dtype=np.float64))
        return 1.0 - real / slots if slots else 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch: inputs and targets by field name, which of them are present, a weight and an id for each row.

    present: {field: bool [batch]} for every input and output. A target that is absent has a zero value and no loss;
    an input that is absent becomes one learnt token.
    """

    inputs: dict[str, Ragged]
    targets: dict[str, Ragged]
    present: dict[str, Any]
    weight: Any  # float32 [batch]
    row_ids: Any  # int64 [batch]

    def __len__(self) -> int:
        return len(self.row_ids)

    def to(self, device: "torch.device | str") -> "Batch":
        """The same batch as tensors on `device`."""
        return Batch(
            inputs={name: field.to(device) for name, field in self.inputs.items()},
            targets={name: field.to(device) for name, field in self.targets.items()},
            present={name: _tensor(flags, device) for name, flags in self.present.items()},
            weight=_tensor(self.weight, device),
            row_ids=_tensor(self.row_ids, device),
        )

    def rows(self, index: Any) -> "Batch":
        """A micro-batch: some of the rows."""
        return Batch(
            inputs={name: field.rows(index) for name, field in self.inputs.items()},
            targets={name: field.rows(index) for name, field in self.targets.items()},
            present={name: flags[index] for name, flags in self.present.items()},
            weight=self.weight[index],
            row_ids=self.row_ids[index],
        )


def _tensor(array: Any, device: "torch.device | str") -> "torch.Tensor":
    import torch

    tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(array))
    return tensor.to(device, non_blocking=True)
