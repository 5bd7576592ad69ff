"""Long tables with a row for each agent and moment (`scene, frame, agent, x, y`), seen as rows that are moments.

Windows over these moments are cut as those of any other long table (`windows.py`). Here: which rows are one moment (`Moments`),
and the agents of a window as its raw value (`AgentWindows`). An agent is in a window if it is there at the last step of the past.

Not here: what a path is and how it is read (modalities/trajectories).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from endwise.data.columns import Column, ListColumn
from endwise.data.split import times
from endwise.data.table import Table
from endwise.errors import DataError, refusal, require, unknown_name

if TYPE_CHECKING:
    from endwise.data.windows import Layout
    from endwise.modalities.trajectories import Trajectories
    from endwise.recipe import Windows


class Moments:
    """The rows of a table by (series, time). rows: the table's, moment after moment, series after series, each in time; those
    of moment k are rows[starts[k] : starts[k + 1]]. table: a row a moment, with the cells of its first row."""

    def __init__(self, source: Table, windows: "Windows") -> None:
        """DataError for a row that does not say its time or its series."""
        count = len(source)
        require(windows.time is not None, field="data.windows.time", got=None, allowed="the column of the time, where several rows are one moment",
                fix="write windows: {time: COLUMN}")  # fmt: skip
        assert windows.time is not None
        moments = np.array(times(source, windows.time, range(count), of="data.windows.time"))
        series = np.zeros(count, np.int64)
        if windows.by is not None:
            seen: dict[str, int] = {}
            for row, cell in enumerate(source.stream(windows.by)):
                require(cell is not None, field=f"{source.origin(row)}, column {windows.by!r} (data.windows.by)", got=None,
                        allowed="the name of a scene in every row", fix="fill it in, or remove the row", error=DataError)  # fmt: skip
                series[row] = seen.setdefault(str(cell), len(seen))
        self.source = source
        self.rows = np.lexsort((moments, series))  # equal ones as they stand in the table
        ordered = np.stack([series, moments], axis=1)[self.rows]
        new = (
            np.flatnonzero(np.append(True, (np.diff(ordered, axis=0) != 0).any(1))) if count else np.zeros(0, np.int64)
        )
        self.starts = np.append(new, count)
        firsts = self.rows[new].tolist()
        columns = {
            name: ListColumn([cells[row] for row in firsts])
            for name in source.columns
            for cells in [source.column(name)]
        }
        note = f"{source.name}: {count} rows are {len(firsts)} moments"
        self.table = Table(
            source.name, columns, finder=source.finder, origins=lambda row: source.origin(firsts[row]),
            notes=[*source.notes, note],
        )  # fmt: skip

    def positions(self, item: "Trajectories", name: str) -> tuple[np.ndarray, np.ndarray]:
        """(int64 [row], a number for each agent; float64 [row, 2]), moment after moment. DataError with the row."""
        assert item.agent is not None
        for column in (item.agent, *item.columns):
            if column not in self.source.columns:
                raise unknown_name(
                    field=f"inputs.{name} (in {self.source.name})",
                    got=column,
                    names=self.source.columns,
                    error=DataError,
                )
        seen: dict[str, int] = {}
        agents = np.zeros(len(self.rows), np.int64)
        cells = self.source.column(item.agent)
        for place, row in enumerate(self.rows.tolist()):
            require(cells[row] is not None, field=f"{self.source.origin(row)}, column {item.agent!r} ({name}.agent)", got=None,
                    allowed="the name of an agent in every row", fix="fill it in, or remove the row", error=DataError)  # fmt: skip
            agents[place] = seen.setdefault(str(cells[row]), len(seen))
        self._check_once(agents, item.agent)
        return agents, np.stack([self._numbers(column) for column in item.columns], axis=1)

    def _check_once(self, agents: np.ndarray, column: str) -> None:
        moment = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        order = np.lexsort((agents, moment))
        twice = np.flatnonzero((np.diff(moment[order]) == 0) & (np.diff(agents[order]) == 0))
        if len(twice):
            one, other = (int(self.rows[order[twice[0] + step]]) for step in (0, 1))
            raise refusal(
                field=f"{self.source.origin(other)}, column {column!r}", got=self.source.cell(column, other), error=DataError,
                allowed=f"each agent once a moment ({self.source.origin(one)} is of the same)",
                fix="keep one of them, or name the column that tells the scenes apart as windows: {by: COLUMN}",
            )  # fmt: skip

    def _numbers(self, column: str) -> np.ndarray:
        cells, found = self.source.column(column), np.zeros(len(self.rows))
        for place, row in enumerate(self.rows.tolist()):
            try:
                found[place] = float(cells[row])
            except (TypeError, ValueError):
                raise refusal(field=f"{self.source.origin(row)}, column {column!r}", got=cells[row], allowed="a number in metres",
                              fix="mend it, or remove the row: an agent need not be there at every step", error=DataError) from None  # fmt: skip
        return found


class AgentWindows(Column):
    """The agents of each window as float32 [agent, step, 2], NaN where one was not seen; None where nobody is there. ahead: the
    futures in the place of the pasts. whole: only of agents that are there at every step of both."""

    def __init__(
        self, moments: Moments, positions: tuple[np.ndarray, np.ndarray], layout: "Layout", *, ahead: bool, whole: bool
    ) -> None:
        self.moments, self.layout, self.ahead, self.whole = moments, layout, ahead, whole
        self.agents, self.points = positions

    def __len__(self) -> int:
        return len(self.layout.first)

    def stream(self, start: int, stop: int) -> Iterator[Any]:
        return map(self.cell, range(start, stop))

    def cell(self, row: int) -> np.ndarray | None:
        first, past = int(self.layout.first[row]), self.layout.past
        # the moments of a series stand together, in time
        begin = int(self.layout.rows[int(self.layout.series[row])][first])
        starts = self.moments.starts[begin : begin + past + self.layout.future + 1]
        own = slice(int(starts[0]), int(starts[-1]))
        agents, step = self.agents[own], np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        now = agents[step == past - 1]
        order = np.argsort(now)
        place = np.minimum(np.searchsorted(now, agents, sorter=order), len(now) - 1)
        known = now[order[place]] == agents
        found = np.full((len(now), len(starts) - 1, 2), np.nan, np.float32)
        found[order[place[known]], step[known]] = self.points[own][known]
        if not self.ahead:
            return found[:, :past]
        if self.whole:
            found[np.isnan(found).any((1, 2))] = np.nan
        future = found[:, past:]
        return None if np.isnan(future).all() else future


__all__ = ["AgentWindows", "Moments"]
