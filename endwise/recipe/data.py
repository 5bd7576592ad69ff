"""The section `data`: where the rows are, which belong together, how they are split; and its short forms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from endwise.recipe.part import OR_DAYS, Part, in_seconds

SOURCES = ("path", "train", "val", "test")  # the fields of `data` that hold rows


class Gather(Part):
    """Rows of the table that belong together. Short: `gather: picture` for `gather: {by: picture}`."""

    by: str = Field(description="rows with the same value here belong together: a picture's boxes, a user's purchases")
    order: str | None = Field(
        None, description="what they are sorted by, oldest first; null: as they stand in the table"
    )
    earlier: dict[str, str] = Field(
        {},
        description="none: each value of `by` becomes one row, whose other columns are lists. {history: item}: rows stay what they "
        "are and get a column `history` of what the rows before them have as `item`; of each value of `by` only the newest row "
        "stays, on each side of a split column: the others are its history",
    )


class Windows(Part):
    """A long table whose rows are steps in time: a row of the data is then a window of them, a past and a future. Series of
    the inputs see the past, those of the outputs are the future; every other column is what it is in the last row of the past.
    A film is the frames of the past. Where trajectories name an `agent:`, the rows of one time are one step, and where nobody is there a series ends."""

    past: int = Field(ge=1, description="steps that a window looks back on")
    future: int = Field(0, ge=0, description="steps ahead that series of the outputs are; 0: none is an output")
    time: str | None = Field(
        None, description="the column of the time, ascending (dates or numbers); null: rows are in order"
    )
    step: float | str | None = Field(
        None,
        description="the time between two rows (3600, 15m, 1h, 1d): a gap is then refused; null: rows are consecutive steps",
    )
    by: str | None = Field(
        None, description="the column that tells several series of one table apart (a shop, a sensor)"
    )
    every: int = Field(1, ge=1, description="a window begins at every so many steps")

    @field_validator("step")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        return in_seconds(value, OR_DAYS, "a number, or a duration such as 15m, 1h or 1d")

    @model_validator(mode="after")
    def _of_time(self) -> Self:
        if self.step is not None and self.time is None:
            raise ValueError("a step goes with the column of the time: name it as time")
        return self


Border = int | float | str


class Borders(Part):
    """Where in time the sides of the split begin: a share of the steps (0.8), a number of rows (8640), or a time as the
    table writes it ('2017-06-26'). No future of a window lies on two sides; a past may reach back over a border."""

    val: Border = Field(0.8, description="the first step of validation")
    test: Border | None = Field(0.9, description="the first step of the test; null: no test rows")
    end: Border | None = Field(None, description="the first step that is not used; null: the table's end")


class Data(Part):
    """Where the rows are and how they are split."""

    path: Any = Field(None, description="a table, a folder, an fsspec address, or a frame / list of dicts in Python")
    train: Any = Field(None, description="the training rows, when the splits are separate files")
    val: Any = Field(None, description="the validation rows; none: 10 % of train, by group or content")
    test: Any = Field(None, description="the test rows: they serve no stopping, calibration or threshold")
    split: str | Borders | None = Field(
        None,
        description="a column with train / val / test; a column named 'split' is found by itself, but for windows. Of windows also "
        "where the sides begin: {val: 0.8, test: 0.9}",
    )
    group: str | None = Field(
        None,
        description="rows with the same value are never on two sides (speaker, patient, part); all steps of a window have one value, "
        "and windows are then not split by time",
    )
    time: str | None = Field(None, description="split by this column: the newest rows are test")
    windows: Windows | None = Field(
        None, description="the rows of the table are steps of long series: {past: 336, future: 96}"
    )
    weight: str | None = Field(None, description="a column of sample weights above or equal to 0")
    gather: Gather | None = Field(None, description="rows of the table that are one row of the task, see below")
    tables: dict[str, Any] = Field(
        {},
        description="further tables by name, whose rows are no rows of the task: where a graph's edges and nodes are looked up",
    )
    max_bad: float = Field(
        0.01, ge=0, le=1, description="share of unreadable rows that is put aside and counted; more is refused"
    )

    @property
    def split_column(self) -> str | None:
        """The column that names the sides, where `split` is one."""
        return self.split if isinstance(self.split, str) else None

    @field_validator("max_bad", mode="before")
    @classmethod
    def _percent(cls, value: Any) -> Any:
        if isinstance(value, str) and value.strip().endswith("%"):
            return float(value.strip().rstrip("%")) / 100
        return value

    @field_validator("gather", mode="before")
    @classmethod
    def _short_gather(cls, value: Any) -> Any:
        return {"by": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (self.train is None):
            raise ValueError("give either 'path' (one source) or 'train' (with optional 'val' and 'test')")
        if self.path is not None and (self.val is not None or self.test is not None):
            raise ValueError("'val' and 'test' go with 'train', not with 'path'")
        if self.time is not None and (self.split is not None or self.group is not None):
            raise ValueError("'time' is a way to split of its own: remove 'split' and 'group'")
        if self.windows is None and isinstance(self.split, Borders):
            raise ValueError(
                "borders in time are for windows of a long table: name a split column, or write windows: {past: ...}"
            )
        return self

    @model_validator(mode="after")
    def _of_windows(self) -> Self:
        """Windows are cut from one table, and split by their own time or by whole groups."""
        if self.windows is None:
            return self
        if self.path is None:
            raise ValueError(
                "windows are cut from one table: give 'path', and where its sides begin as split: {val: 0.8, test: 0.9}"
            )
        if self.gather is not None:
            raise ValueError(
                "windows are cut from rows as they are: remove 'gather', or 'windows' where a series is one row's list"
            )
        if self.time is not None:
            raise ValueError(
                "windows are split by their own time: write windows: {time: COLUMN} and split: {val: 0.8, test: 0.9}, or the "
                "column that names the sides, without time"
            )
        if self.group is not None and isinstance(self.split, Borders):
            raise ValueError(
                "windows are split by time or by group: remove 'group', or the borders in 'split' where whole groups are apart"
            )
        return self


def in_full(value: Any) -> Any:
    """The section `data` from its short forms: an address, a frame, a table of columns or of rows is its path."""
    if isinstance(value, Data):
        return value
    if is_columns(value):  # a column may be called 'split', 'path' or 'weight'
        return {"path": value}
    if isinstance(value, Mapping) and any(key in Data.model_fields for key in value):
        return value
    if isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(item, str) for key, item in value.items()
    ):
        return value  # a misspelt section: refused by name, not taken for a table of columns
    return {"path": value}


def is_columns(value: Any) -> bool:
    """Whether this is a table {column: cells} and no `data` section, whatever its columns are called: a section has
    tables in its sources (a list of rows, a frame) and a name or a number in all other fields."""
    if not isinstance(value, Mapping) or not value:
        return False
    if not all(_is_column(cells) for cells in value.values()):
        return False
    return any(key not in SOURCES for key in value) and not all(
        isinstance(cells, list | tuple) and cells and isinstance(cells[0], Mapping) for cells in value.values()
    )


def _is_column(cells: Any) -> bool:
    """A list, an array or a series; not a text, and not a frame of several columns."""
    sized = hasattr(cells, "__len__") and not isinstance(cells, str | bytes | Mapping)
    return sized and not hasattr(cells, "columns")


def rebased_sources(data: Any, folder: Path) -> Any:
    """The section with its relative addresses taken from a folder, the recipe's own."""

    def rebase(value: Any) -> Any:
        if isinstance(value, str) and "://" not in value and not Path(value).is_absolute():
            return str(folder / value)
        return value

    if isinstance(data, Mapping):
        return {
            name: {key: rebase(item) for key, item in value.items()}
            if name == "tables" and isinstance(value, Mapping)
            else rebase(value)
            if name in SOURCES
            else value
            for name, value in data.items()
        }
    return rebase(data)
