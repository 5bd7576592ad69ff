"""Long tables whose rows are steps in time, seen as rows that are windows.

A window is a stretch of its table: `past` rows and the `future` rows behind them. Each long column is decoded and stored
once, and a window is a slice of it. The sides of the split are stretches of time: the future of a window lies on one side
or the window is on none; its past may reach back over a border. Where a column names the sides, or groups (subjects) are kept apart, all steps of a window are
on one side.

Not here: what a series and a film are and how they are read (modalities/), which rows are one moment of several agents (`moments.py`),
splits of other tables (`split.py`).
"""

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from endwise.data.columns import Column, PickedColumn
from endwise.data.key import field_key
from endwise.data.moments import AgentWindows, Moments
from endwise.data.read import HASH_BYTES, Cells, Packed, read_column
from endwise.data.split import SIDES, TEST_SHARE, VAL_SHARE, Splits, assign, side_of, times
from endwise.data.steps import Uneven, uneven
from endwise.data.store import FieldStore, open_field
from endwise.data.table import Table
from endwise.errors import BadValue, DataError, refusal, require, unknown_name
from endwise.modalities.base import Contract, Role
from endwise.when import time_of

if TYPE_CHECKING:
    from endwise.modalities.base import Modality
    from endwise.modalities.series import Series
    from endwise.modalities.trajectories import Trajectories
    from endwise.recipe import Border, Recipe, Windows

STEP_TOLERANCE = 1e-6  # of a declared step, relative
NAMED = 3


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the windows of a table are. rows: of each long series the numbers of its table rows, in time; times: of these
    rows. series, first: of each window the long series, and where in it the past begins."""

    rows: tuple[np.ndarray, ...]
    times: tuple[np.ndarray, ...]
    series: np.ndarray
    first: np.ndarray
    past: int
    future: int

    def windows_of(self) -> Iterator[tuple[int, slice]]:
        """(long series, where its windows are); those of a series stand together."""
        ends = np.searchsorted(self.series, np.arange(len(self.rows) + 1)).tolist()
        return ((index, slice(ends[index], ends[index + 1])) for index in range(len(self.rows)))

    def now(self) -> np.ndarray:
        """int64 [window]: the table row of the last step of each past."""
        found = np.zeros(len(self.first), np.int64)
        for index, own in self.windows_of():
            rows = self.rows[index]
            found[own] = rows[self.first[own] + self.past - 1]
        return found

    def blocks(self) -> np.ndarray:
        """int64 [window]: windows of one number share steps, so that they are no independent evidence."""
        span = self.future or self.past
        widest = max(len(rows) for rows in self.rows) // span + 2
        found: np.ndarray = self.series * widest + (self.first + self.past) // span
        return found

    def targets(self) -> tuple[np.ndarray, np.ndarray]:
        """(time of the first step of each future, of its last); of windows without a future the last step of the past."""
        begin = self.first + self.past - (0 if self.future else 1)
        end = begin + max(1, self.future) - 1
        one, other = np.zeros(len(begin)), np.zeros(len(begin))
        for index, own in self.windows_of():
            moments = self.times[index]
            one[own], other[own] = moments[begin[own]], moments[end[own]]
        return one, other


class Slices(Column):
    """The raw cells of windows: {column: list of cells}. offset, length: of the steps within a window."""

    def __init__(self, parts: Mapping[str, Column], layout: Layout, offset: int, length: int) -> None:
        self.parts, self.layout, self.offset, self.length = dict(parts), layout, offset, length

    def __len__(self) -> int:
        return len(self.layout.first)

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        return map(self.cell, range(start, stop))

    def cell(self, row: int) -> Any:
        begin = int(self.layout.first[row]) + self.offset
        rows = self.layout.rows[int(self.layout.series[row])][begin : begin + self.length]
        return {name: _cells(part, rows) for name, part in self.parts.items()}


def _cells(column: Column, rows: np.ndarray) -> list[Any]:
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return column[int(rows[0]) : int(rows[-1]) + 1]
    return [column.cell(int(row)) for row in rows]


# ---- a table as the recipe sees it -----------------------------------------------------------------------------------


def view(table: Table, recipe: "Recipe", *, ahead: bool = False) -> Table:
    """The table with a row for each window, where the recipe says so. ahead: only the last window of each series, whose future
    nobody knows. DataError for columns that are not there, RecipeError for fields that make no sense in windows."""
    if recipe.data.windows is None:
        return table
    made = _series_of(recipe)
    windows = recipe.data.windows
    _check_fields(recipe)
    for part in (windows.time, windows.by):
        if part is not None and part not in table.columns:
            raise unknown_name(field=f"data.windows ({table.name})", got=part, names=table.columns, error=DataError)
    crowds = _crowds_of(recipe)
    moments = Moments(table, windows) if crowds else None
    table = table if moments is None else moments.table
    known = windows.future if any(item.known for item, _ in made.values()) else 0
    layout, notes = _laid_out(table, windows, known if ahead else windows.future, ahead=ahead, gaps=moments is not None)
    now = layout.now()
    columns: dict[str, Column] = {name: PickedColumn(table.column_of(name), now) for name in table.columns}
    for name, (item, sources) in made.items():
        if ahead and name in recipe.outputs:
            continue
        for column in sources:
            if column not in table.columns:
                raise unknown_name(
                    field=f"{name}.columns (in {table.name})", got=column, names=table.columns, error=DataError
                )
        offset = windows.past if name in recipe.outputs else 0
        length = windows.future if name in recipe.outputs else windows.past + (windows.future if item.known else 0)
        columns[name] = Slices({column: table.column_of(column) for column in sources}, layout, offset, length)
    films = _films_of(recipe)
    for name, column in films.items():
        if column not in table.columns:
            raise unknown_name(
                field=f"inputs.{name}.column (in {table.name})", got=column, names=table.columns, error=DataError
            )
        columns[column] = FrameWindows(table.column_of(column), layout)
    if moments is not None:
        columns |= _agents_of(crowds, moments, layout, () if ahead else tuple(recipe.outputs))
    return WindowTable(table, columns, {*made, *crowds}, layout, notes)


def _agents_of(
    crowds: "Mapping[str, tuple[Trajectories, str]]", moments: Moments, layout: Layout, outputs: Collection[str]
) -> dict[str, Column]:
    """The columns of the fields that are agents; those of an output are those of its input."""
    inputs = {name: item for name, (item, source) in crowds.items() if name == source}
    known = {name: moments.positions(item, name) for name, item in inputs.items()}
    return {
        name: AgentWindows(moments, known[source], layout, ahead=name != source, whole=item.whole)
        for name, (item, source) in crowds.items()
        if name == source or name in outputs
    }


class FrameWindows(Column):
    """The cells of the past of each window: the frames of a film."""

    def __init__(self, frames: Column, layout: Layout) -> None:
        self.frames, self.layout = frames, layout

    def __len__(self) -> int:
        return len(self.layout.first)

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        return map(self.cell, range(start, stop))

    def cell(self, row: int) -> list[Any] | None:
        begin = int(self.layout.first[row])
        rows = self.layout.rows[int(self.layout.series[row])][begin : begin + self.layout.past]
        found = _cells(self.frames, rows)
        return None if any(cell is None for cell in found) else found


class WindowTable(Table):
    """A table with a row for each window of another."""

    def __init__(
        self, source: Table, columns: Mapping[str, Column], made: Collection[str], layout: Layout, notes: Sequence[str]
    ) -> None:
        origins = _Origins(source, layout.now())
        super().__init__(
            source.name, columns, finder=source.finder, origins=origins, notes=(*source.notes, *notes), made=made
        )
        self.source, self.layout = source, layout
        self._own_notes = tuple(notes)

    def with_columns(self, made: Mapping[str, Column]) -> "WindowTable":
        """As `Table.with_columns`; the rows stay windows."""
        columns = {**self._columns, **made}
        return WindowTable(self.source, columns, {*self._made, *made}, self.layout, self._own_notes)


@dataclass(frozen=True)
class _Origins:
    """A window is named by the last row of its past."""

    table: Table
    now: np.ndarray

    def __call__(self, row: int) -> str:
        return f"the window up to {self.table.origin(int(self.now[row]))}"


def _series_of(recipe: "Recipe") -> "dict[str, tuple[Series, tuple[str, ...]]]":
    """The fields that are cut into windows, with the columns of the source that they are made of."""
    from endwise.modalities.series import Series

    fields = (*recipe.inputs.items(), *recipe.outputs.items())
    return {name: (item, item.reads_columns() or (name,)) for name, item in fields if isinstance(item, Series)}


def _crowds_of(recipe: "Recipe") -> "dict[str, tuple[Trajectories, str]]":
    """The fields that are agents, each with the input whose agents they are. An output that no such input says the columns of
    is an ordinary one."""
    from endwise.modalities.trajectories import Trajectories

    found = {
        name: (item, name)
        for name, item in recipe.inputs.items()
        if isinstance(item, Trajectories) and item.agent is not None
    }
    for name in recipe.outputs:
        item = recipe.standing(name)
        if isinstance(item, Trajectories) and item.on in found:
            found[name] = (item, item.on)
    return found


def _films_of(recipe: "Recipe") -> dict[str, str]:
    """The fields whose frames are rows of the table, with the column that has them."""
    from endwise.modalities.video import Video

    found = {name: item.column or name for name, item in recipe.inputs.items() if isinstance(item, Video)}
    fields = [item.column or name for name, item in (*recipe.inputs.items(), *recipe.outputs.items())]
    for name, column in found.items():
        require(fields.count(column) == 1, field=f"inputs.{name}.column", got=column, allowed="a column that no other field reads: in windows it is many frames",
                fix="declare one film, or give the table the column twice")  # fmt: skip
    return found


def _check_fields(recipe: "Recipe") -> None:
    """Fields that make no sense in windows, or whose answer an input would know."""
    made, crowds, windows = _series_of(recipe), _crowds_of(recipe), recipe.data.windows
    assert windows is not None
    require(
        bool(made or crowds or _films_of(recipe)),
        field="data.windows", got=windows.model_dump(exclude_defaults=True),
        allowed="a recipe with a series, a film, or trajectories that say agent:", fix="declare one of them, or remove windows",
    )  # fmt: skip
    for name in crowds:
        require(
            name in recipe.inputs or windows.future > 0, field="data.windows.future", got=0,
            allowed=f"at least 1 step for outputs.{name}", fix="write future: 12",
        )  # fmt: skip
    ahead = {column for item, sources in made.values() if item.known for column in sources}
    for name, (item, sources) in made.items():
        where = f"outputs.{name}" if name in recipe.outputs else f"inputs.{name}"
        require(item.column is None, field=f"{where}.column", got=item.column, allowed="columns: in windows of a table",
                fix=f"write columns: [{item.column}]")  # fmt: skip
        _check_gaps(item, windows, where)
        if name in recipe.outputs:
            told = sorted(ahead & set(sources))
            require(not told, field=f"{where}.columns", got=told, allowed="columns that no input knows ahead (known: true)",
                    fix="remove known, or the column")  # fmt: skip
            require(
                windows.future > 0,
                field="data.windows.future",
                got=0,
                allowed=f"at least 1 step for {where}",
                fix="write future: 96",
            )
    for name, other in (*recipe.inputs.items(), *recipe.outputs.items()):
        column = other.column or name
        require(name in made or column not in made, field=name, got=column, allowed="a column whose name no series of the recipe has",
                fix=f"call the series {column!r} something else and say columns:")  # fmt: skip


def _check_gaps(item: "Series", windows: "Windows", where: str) -> None:
    """The times of a series are those of the windows, whose steps may then differ."""
    if item.times is None:
        return
    require(windows.time is not None, field=f"{where}.times", got=item.times, allowed="no times where windows have none",
            fix=f"write data: {{windows: {{time: {item.times}}}}}")  # fmt: skip
    require(item.times == windows.time, field=f"{where}.times", got=item.times, allowed=f"{windows.time}, the time of the windows",
            fix=f"write times: {windows.time}")  # fmt: skip
    require(windows.step is None, field=f"{where}.times", got=item.times, allowed="no times beside data.windows.step: every gap is then the same",
            fix="remove step where gaps differ, or times where they do not")  # fmt: skip


# ---- where the windows are -------------------------------------------------------------------------------------------


def _laid_out(table: Table, windows: "Windows", future: int, *, ahead: bool, gaps: bool) -> tuple[Layout, list[str]]:
    """gaps: where a step is longer than declared a series ends and another begins, in the place of an error."""
    count = len(table)
    groups = [np.arange(count)] if windows.by is None else _groups(table, windows.by)
    moments = [np.arange(len(rows), dtype=np.float64) for rows in groups]
    if windows.time is not None:
        every = np.array(times(table, windows.time, range(count), of="data.windows.time"))
        if gaps and windows.step is not None:
            groups = [part for rows in groups for part in _pieces(rows, every[rows], float(windows.step), ahead=ahead)]
        moments = [every[rows] for rows in groups]
        for rows, own in zip(groups, moments, strict=True):
            _check_times(table, windows, rows, own)
    span = windows.past + future
    series, first = [], []
    short = [index for index, rows in enumerate(groups) if len(rows) < span]
    for index, rows in enumerate(groups):
        last = len(rows) - span
        if last >= 0:
            starts = np.array([last]) if ahead else np.arange(0, last + 1, windows.every)
            series.append(np.full(len(starts), index))
            first.append(starts)
    if not first or (ahead and short):
        longest = len(groups[short[0]]) if ahead else max(map(len, groups))
        raise refusal(
            field=f"{table.name}: data.windows", got=f"a series of {longest} steps", error=DataError,
            allowed=f"at least {span}: past = {windows.past}" + (f" and future = {future}" if future else ""),
            fix="give more rows, or look back on fewer steps",
        )  # fmt: skip
    notes = []
    if short:
        named = ", ".join(table.origin(int(groups[index][0])) for index in short[:NAMED])
        notes.append(
            f"{len(short)} of {len(groups)} series have fewer than {span} steps and no window (they begin at {named})"
        )
    found = Layout(tuple(groups), tuple(moments), np.concatenate(series), np.concatenate(first), windows.past, future)
    return found, notes


def _pieces(rows: np.ndarray, moments: np.ndarray, step: float, *, ahead: bool) -> list[np.ndarray]:
    """The rows between longer steps than declared. ahead: the last ones."""
    found = np.split(rows, np.flatnonzero(np.diff(moments) > (1 + STEP_TOLERANCE) * step) + 1)
    return found[-1:] if ahead else found


def _groups(table: Table, by: str) -> list[np.ndarray]:
    """The rows of each series, in the order of the table."""
    found: dict[str, list[int]] = {}
    for row, cell in enumerate(table.stream(by)):
        if cell is None:
            raise refusal(field=f"{table.origin(row)}, column {by!r} (data.windows.by)", got=None, allowed="the name of a series in every row",
                          fix="fill it in, or remove the row", error=DataError)  # fmt: skip
        found.setdefault(str(cell), []).append(row)
    return [np.array(rows, np.int64) for rows in found.values()]


def _check_times(table: Table, windows: "Windows", rows: np.ndarray, moments: np.ndarray) -> None:
    """Ascending, and every step as long as declared."""
    assert windows.time is not None
    gaps = np.diff(moments)
    where = f"column {windows.time!r} (data.windows.time)"
    if (gaps <= 0).any():
        at = int(np.flatnonzero(gaps <= 0)[0]) + 1
        twice = gaps[at - 1] == 0
        raise refusal(
            field=f"{table.origin(int(rows[at]))}, {where}", got=table.cell(windows.time, int(rows[at])), error=DataError,
            allowed=f"a later time than in {table.origin(int(rows[at - 1]))}" + (", and each time once" if twice else ""),
            fix="sort the rows by time" if not twice else "keep one row a time, or say by: where there are several series",
        )  # fmt: skip
    if windows.step is not None:
        step = float(windows.step)
        odd = np.flatnonzero(np.abs(gaps - step) > STEP_TOLERANCE * step)
        if len(odd):
            at = int(odd[0]) + 1
            raise refusal(
                field=f"{table.origin(int(rows[at]))}, {where}", got=table.cell(windows.time, int(rows[at])), error=DataError,
                allowed=f"a time {step:g} after that of {table.origin(int(rows[at - 1]))}, as data.windows.step says",
                fix="put the missing rows in with empty cells, or remove step where rows follow each other whatever their time",
            )  # fmt: skip


def uneven_steps(table: WindowTable, time: str) -> tuple[Uneven, str] | None:
    """What is odd about the steps of these windows, and the row at which the first odd one ends. None where nothing is."""
    layout = table.layout
    dates = time_of(table.source.cell(time, int(layout.rows[0][0])))[0] != "number"
    found = uneven(layout.times, dates=dates)
    if found is None:
        return None
    index, place = found.first
    return found, table.source.origin(int(layout.rows[index][place]))


# ---- the split -------------------------------------------------------------------------------------------------------


def window_splits(table: WindowTable, recipe: "Recipe") -> Splits:
    """The sides of the windows, by the time of their futures."""
    from endwise.recipe import Borders

    layout, data = table.layout, recipe.data
    assert data.windows is not None
    if data.split_column is not None:
        return _column_splits(table, data.split_column)
    if data.group is not None:
        return _group_splits(table, data.group, recipe.train.seed)
    borders = data.split if isinstance(data.split, Borders) else Borders()
    val, test, end = (_border(table, data.windows, name, getattr(borders, name)) for name in ("val", "test", "end"))
    told = borders.model_dump()
    require(val < test <= end, field="data.split", got=told, allowed="val before test before end",
            fix="write split: {val: 0.8, test: 0.9}", error=DataError)  # fmt: skip
    first, last = layout.targets()
    sides = {
        "train": np.flatnonzero(last < val),
        "val": np.flatnonzero((first >= val) & (last < test)),
        "test": np.flatnonzero((first >= test) & (last < end)),
    }
    for name, rows in sides.items():
        require(
            len(rows) > 0 or (name == "test" and borders.test is None), field="data.split", got=told,
            allowed=f"borders that leave {name} at least one window of {max(1, layout.future)} future steps",
            fix="move the borders, or look ahead fewer steps", error=DataError,
        )  # fmt: skip
    across = int((last < end).sum()) - sum(map(len, sides.values()))
    how = f"by time: the futures of validation begin at {_said(table, data.windows, val)}"
    how += (
        f", those of the test at {_said(table, data.windows, test)}"
        if borders.test is not None
        else "; no test rows were given, so none are kept for a final test"
    )
    how += f"; {across} windows whose future lies on two sides are on none" if across else ""
    return Splits(train=sides["train"], val=sides["val"], test=sides["test"], how=how)


def _column_splits(table: WindowTable, column: str) -> Splits:
    """The side that a column of the source says for every step of a window, past and future; windows of two sides are on none."""
    if column not in table.source.columns:
        raise unknown_name(
            field=f"data.split (in {table.name})", got=column, names=table.source.columns, error=DataError
        )
    said = np.zeros(len(table.source), np.int64)
    for row, cell in enumerate(table.source.stream(column)):
        side = side_of(cell)
        require(side is not None, field=f"{table.source.origin(row)}, column {column!r} (data.split)", got=cell,
                allowed=", ".join(SIDES), fix="write one of them in every row", error=DataError)  # fmt: skip
        said[row] = SIDES.index(str(side))
    sides, span = _of_all_steps(table.layout, said), table.layout.past + table.layout.future
    found = {name: np.flatnonzero(sides == number) for number, name in enumerate(SIDES)}
    for name in ("train", "val"):
        require(len(found[name]) > 0, field=f"data.split (column {column!r})", got=f"no window of {span} steps in {name}",
                allowed="a stretch of time, or a scene, for train and for val: windows drawn at random would share their steps",
                fix=f"write {name} in rows that follow each other", error=DataError)  # fmt: skip
    across = int((sides < 0).sum())
    how = f"by column {column!r}" + (f"; {across} windows with steps on two sides are on none" if across else "")
    return Splits(train=found["train"], val=found["val"], test=found["test"], how=how)


def _group_splits(table: WindowTable, column: str, seed: int) -> Splits:
    """Whole groups on each side, by a hash of the seed and the group; windows with steps of two groups are on none."""
    if column not in table.source.columns:
        raise unknown_name(
            field=f"data.group (in {table.name})", got=column, names=table.source.columns, error=DataError
        )
    codes: dict[str, int] = {}
    said = np.zeros(len(table.source), np.int64)
    for row, cell in enumerate(table.source.stream(column)):
        require(cell is not None, field=f"{table.source.origin(row)}, column {column!r} (data.group)", got=None,
                allowed="a value in every row", fix="fill in the group: a row without one may belong to two sides", error=DataError)  # fmt: skip
        said[row] = codes.setdefault(str(cell), len(codes))
    names, group = list(codes), _of_all_steps(table.layout, said)
    whole = np.flatnonzero(group >= 0)
    seen = len(np.unique(group[whole]))
    span = table.layout.past + table.layout.future
    require(seen >= len(SIDES), field=f"data.group (column {column!r})", got=f"{seen} of {len(names)} values with a window of {span} steps",
            allowed=f"at least {len(SIDES)}, one for each side", fix="give more of them, or name the sides in a split column", error=DataError)  # fmt: skip
    sides = assign([names[code] for code in group[whole].tolist()], seed, {"test": TEST_SHARE, "val": VAL_SHARE})
    across = len(group) - len(whole)
    how = f"80/10/10 by a hash of the seed and the group {column!r}"
    how += f"; {across} windows with steps of two groups are on none" if across else ""
    train, val, test = (whole[sides == side] for side in SIDES)
    return Splits(train=train, val=val, test=test, how=how)


def _of_all_steps(layout: Layout, codes: np.ndarray) -> np.ndarray:
    """int64 [window]: what all steps of the window, past and future, have of `codes` [row]; -1 where it is not one."""
    found, span = np.full(len(layout.first), -1), layout.past + layout.future
    for index, own in layout.windows_of():
        steps = codes[layout.rows[index]]
        changes = np.append(0, np.cumsum(np.diff(steps) != 0))
        first = layout.first[own]
        found[own] = np.where(changes[first] == changes[first + span - 1], steps[first], -1)
    return found


def _border(table: WindowTable, windows: "Windows", name: str, border: "Border | None") -> float:
    """The time at which a side begins; for one that is not given infinitely late."""
    field, moments = f"data.split.{name}", table.layout.times
    if border is None:
        return math.inf
    if isinstance(border, str):
        kind, found = time_of(border)
        usual = "number" if windows.time is None else time_of(table.source.cell(windows.time, 0))[0]
        require(kind == usual, field=field, got=border, allowed=f"a {usual}, as the time is in {table.name}",
                fix="write it as the table does", error=DataError)  # fmt: skip
        return found
    longest = max(moments, key=len)
    if isinstance(border, float):
        require(0 < border < 1, field=field, got=border, allowed="a share between 0 and 1, or a whole number of rows",
                fix="write 0.8", error=DataError)  # fmt: skip
        every = np.sort(np.concatenate(moments))
        return float(every[int(border * len(every))])
    require(len(moments) == 1 or windows.time is None, field=field, got=border, allowed="a share or a time, where there are several series",
            fix="write the time at which the side begins", error=DataError)  # fmt: skip
    require(0 < border <= len(longest), field=field, got=border, allowed=f"1 to {len(longest)}, the rows there are",
            fix="rows are counted from 0", error=DataError)  # fmt: skip
    return float(longest[border]) if border < len(longest) else math.inf


def _said(table: WindowTable, windows: "Windows", border: float) -> str:
    """A border as the table writes its times."""
    moments = table.layout.times
    longest = max(range(len(moments)), key=lambda index: len(moments[index]))
    at = int(np.searchsorted(moments[longest], border))
    if windows.time is None or at >= len(moments[longest]):
        return f"step {at}"
    return str(table.source.cell(windows.time, int(table.layout.rows[longest][at])))


# ---- the store -------------------------------------------------------------------------------------------------------


class WindowStore(FieldStore):
    """The decoded values of windows: slices of the long series, each of which is stored once. As `FieldStore`."""

    def __init__(self, long: FieldStore, layout: Layout, offset: int, length: int, channels: int | None) -> None:
        """channels: the first so many have values, of which one has to be there; None: all."""
        self._kept, self._layout, self._channels = long, layout, channels
        self._long = [long[index] for index in range(len(long))]
        self._begin_at = layout.first + offset
        self._length = length
        self.folder, self.bad, self.nbytes = long.folder, (), long.nbytes
        self.dtype = np.result_type(*{item.dtype for item in self._long})
        self.common_shape = (length, self._long[0].shape[1])
        self.ndim = 2
        self.present = self._any_there()
        told = hashlib.sha256(f"{long.fingerprint} {offset} {length}".encode())
        told.update(layout.series.tobytes() + layout.first.tobytes())
        self.fingerprint = told.hexdigest()

    def _any_there(self) -> np.ndarray:
        """Windows of which at least one value is there."""
        found = np.ones(len(self._begin_at), bool)
        for index, own in self._layout.windows_of():
            values = self._long[index]
            if values.dtype.kind == "f":
                before = np.concatenate([[0], np.cumsum(~np.isnan(values[:, : self._channels]).all(1))])
                begin = self._begin_at[own]
                found[own] = before[begin + self._length] > before[begin]
        return found

    def __len__(self) -> int:
        return len(self._begin_at)

    def __getitem__(self, row: int) -> np.ndarray:
        row = int(row)
        if not self.present[row]:
            raise KeyError(f"row {row} has no value")
        begin = int(self._begin_at[row])
        value: np.ndarray = self._long[int(self._layout.series[row])][begin : begin + self._length]
        return value

    def shape(self, row: int) -> tuple[int, ...]:
        assert self.common_shape is not None
        return self.common_shape if self.present[row] else ()

    def gather(self, rows: np.ndarray) -> np.ndarray:
        assert self.common_shape is not None
        out = np.empty((len(rows), *self.common_shape), self.dtype)
        for index, row in enumerate(rows.tolist()):
            out[index] = self[row]
        return out

    def lengths(self, modality: "Modality") -> np.ndarray:
        return np.where(self.present, self._length, 0).astype(np.int64)

    @property
    def content(self) -> np.ndarray:
        """uint8 [rows, 16]: which stretch of which series a window is."""
        found = np.zeros((len(self), 2), np.int64)
        found[:, 0] = self._begin_at + 1
        found[:, 1] = self._layout.series * (1 << 32) + self._length
        found[~self.present] = 0
        return found.view(np.uint8).reshape(len(self), HASH_BYTES)

    def is_intact(self) -> bool:
        return self._kept.is_intact()

    def close(self) -> None:
        self._kept.close()

    def fit(self, modality: "Modality", role: Role, rows: np.ndarray) -> Contract:
        """The contract of the windows of these rows, from each step that they cover, pasts and futures, once."""
        from endwise.modalities.series import Series

        assert isinstance(modality, Series)
        layout = self._layout
        span = layout.past + layout.future

        def covered() -> Iterator[np.ndarray]:
            for index in np.unique(layout.series[rows]).tolist():
                first = layout.first[rows[layout.series[rows] == index]]
                yield self._long[index][int(first.min()) : int(first.max()) + span]

        return modality.fit_windows(covered(), length=self._length, count=len(rows), role=role)


class _LongSeries(Sequence[Any]):
    """The raw cells of each long series, one at a time."""

    def __init__(self, slices: Slices) -> None:
        self.slices = slices

    def __len__(self) -> int:
        return len(self.slices.layout.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        rows = self.slices.layout.rows[index]
        return {name: _cells(part, rows) for name, part in self.slices.parts.items()}


def open_windows(name: str, modality: "Modality", slices: Slices, table: WindowTable) -> WindowStore:
    """The store of one field. DataError names the row and the column of what is no number."""
    from endwise.modalities.series import Series

    long = _LongSeries(slices)

    def decode() -> Iterator[Packed]:
        return read_column(modality, [Cells(long, table.fetch)], workers=1)

    about = f"{name} ({modality.type}) of {table.name}"
    store = open_field(field_key(modality, [(long, table.base)]), len(long), decode, about=about)
    if store.bad:
        raise _blamed(modality, slices, table, *store.bad[0])
    assert isinstance(modality, Series)
    return WindowStore(store, slices.layout, slices.offset, slices.length, len(modality.columns or ()) or None)


def _blamed(modality: "Modality", slices: Slices, table: WindowTable, index: int, reason: str) -> DataError:
    """Which cell of a long series cannot be read."""
    for column, part in slices.parts.items():
        for row in slices.layout.rows[index].tolist():
            cell = part.cell(row)
            try:
                modality.read(
                    {name: [0.0 if name != column or cell is None else cell] for name in slices.parts}, table.fetch
                )
            except BadValue as wrong:
                return DataError(
                    f"{table.source.origin(row)}, column {column!r}: {wrong}. Fix: mend the cell, or leave it empty."
                )
    return DataError(f"{table.source.origin(int(slices.layout.rows[index][0]))} and what follows: {reason}")


__all__ = ["Layout", "WindowStore", "WindowTable", "open_windows", "uneven_steps", "view", "window_splits"]
