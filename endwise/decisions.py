"""The decision log: what was answered, when, by which model, to what, in lines that cannot be changed unseen.

Every line holds the hash of all before it (a hash chain, Haber and Stornetta 1991): edit, remove or move one, and
`verify` names it. The number and hash of the last line, written down elsewhere, also prove that nothing was rewritten
from some line on. Kept in SQLite, or in PostgreSQL by its address. Not here: who answers (serve).
"""

import contextlib
import datetime
import hashlib
import itertools
import json
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from endwise.errors import DataError, SetupError, need, refusal
from endwise.files import parse_json, plain
from endwise.lineage import Link, Progress, State, environment, run_of, trace

START = hashlib.sha256(b"endwise decisions 1").hexdigest()  # what the first line follows
POSTGRES = ("postgresql://", "postgres://")
LARGE = 4096  # characters of an answer that are kept; of a longer one (a picture, a sound) its hash
TOGETHER = 64  # answers of a table that are written down in one transaction
WAIT_S = 30.0  # for another process that writes
TABLES = (
    "CREATE TABLE IF NOT EXISTS endwise_decisions (number BIGINT PRIMARY KEY, id TEXT, line TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS endwise_decisions_id ON endwise_decisions (id)",
    "CREATE TABLE IF NOT EXISTS endwise_head (one INTEGER PRIMARY KEY, number BIGINT NOT NULL, hash TEXT NOT NULL)",
)
PREDICTION, EXPLANATION = "prediction", "explanation"  # kinds of lines that hold an answer
MOST_SAID = 20  # problems that are spelled out


class Facts(Protocol):
    """What the log keeps of a model."""

    @property
    def sha256(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def place(self) -> Path: ...
    @property
    def recipe(self) -> dict[str, Any]: ...
    @property
    def info(self) -> dict[str, Any]: ...


class Answered(Protocol):
    """A row's answers with the hashes of its raw values: a `Prediction` that was asked for them."""

    @property
    def inputs(self) -> Mapping[str, str] | None: ...
    def to_dict(self) -> dict[str, Any]: ...


Other = TypeVar("Other", bound=Exception)
Given = TypeVar("Given", bound=Answered)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One answer. inputs: {input: sha256 of its raw value}; outputs: as they were given; explained: of an answer that was
    given with its reasons, what was told of them but for the values themselves."""

    id: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, Mapping[str, Any]]
    explained: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Verification:
    """What `verify` found: how many lines, the number and hash of the last as NUMBER:HASH, and what is wrong."""

    count: int
    head: str
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Is every line as it was written, in its place?"""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "lines": self.count, "head": self.head, "problems": list(self.problems)}

    def __str__(self) -> str:
        if self.ok:
            return f"{self.count} lines, each as it was written, in its place\nhead  {self.head}"
        more = len(self.problems) - MOST_SAID
        said = [*self.problems[:MOST_SAID], *([f"and {more} more"] if more > 0 else [])]
        return f"{self.count} lines; the log is not as it was written:\n" + "\n".join(f"  {line}" for line in said)


@dataclass(frozen=True)
class Shown:
    """One decision and where it comes from. links: each step of the way back, and whether it is on disk as it was. data: what
    the run says of the rows it was trained on, where the run is there."""

    decision: dict[str, Any]
    model: dict[str, Any]
    links: tuple[Link, ...]
    data: dict[str, Any] | None

    @property
    def there(self) -> bool:
        """Is the model still in its place, byte for byte?"""
        return all(link.state == "same" for link in self.links if link.name in ("model", "weights"))

    @property
    def ok(self) -> bool:
        """Is nothing changed or gone, as far as can be known?"""
        return all(link.holds for link in self.links)

    def to_dict(self) -> dict[str, Any]:
        links = [link.to_dict() for link in self.links]
        return {"decision": self.decision, "model": self.model, "ok": self.ok, "links": links, "data": self.data}

    def __str__(self) -> str:
        given, made = self.decision, self.model
        lines = [f"decision     {given['id']} of {given['time']}, line {given['number']}"]
        lines += [f"input        {name}: sha256 {value}" for name, value in given["inputs"].items()]
        lines += [
            f"answer       {name}: {json.dumps(answer['value'], ensure_ascii=False)[:200]}"
            + (f" ({answer['confidence']:.0%})" if answer.get("confidence") is not None else "")
            for name, answer in given["outputs"].items()
        ]
        if (why := given.get("explained")) is not None:
            lines += [f"explained    {why['about']}, by {why['method'].replace('_', ' ')}: {why['verdict']}"]
        lines += [f"model        {made['name']}, sha256 {made['model']}, was in {made['place']}"]
        lines += [
            f"recipe       {', '.join(made['recipe'].get('inputs', {}))} -> {', '.join(made['recipe'].get('outputs', {}))}"
        ]
        lines += [f"data         fingerprint {given['data'] or 'unknown'}"]
        if self.data is not None:
            rows = ", ".join(f"{count} {split}" for split, count in self.data["rows"].items())
            lines += [f"             {rows} rows, {self.data['split']}"]
        trained = ", ".join(f"{name} {version}" for name, version in made["info"].get("versions", {}).items())
        lines += [f"trained with {trained or 'unknown'}"]
        lines += [f"served with  Python {made['environment']['python']} on {made['environment']['platform']}, "
                  f"{len(made['environment']['packages'])} packages (--json lists them)"]  # fmt: skip
        lines += ["the way back, as it is on disk now:", *(f"  {link}" for link in self.links)]
        return "\n".join(lines)


class Decisions:
    """A log by its path (SQLite) or its address (postgresql://...). Safe to use from several threads and processes."""

    def __init__(self, store: "_Store") -> None:
        self._store, self._lock = store, threading.Lock()
        self._known: set[str] = set()  # models that have their line

    @classmethod
    def open(cls, place: str | Path, *, create: bool = False) -> Self:
        """An existing log, or a new one with `create`. SetupError where there is none, or where it cannot be had."""
        if str(place).startswith(POSTGRES):
            return cls(_Postgres(str(place)))
        if "://" in str(place):
            raise refusal(field="log", got=str(place).partition("://")[0] + "://...", allowed="a path, or postgresql://...",
                          fix="give a path such as decisions.db", error=SetupError)  # fmt: skip
        return cls(_Sqlite(Path(place), create))

    def record(self, model: Facts, decisions: Sequence[Decision]) -> None:
        """Append them, all or none; on disk when this returns. The first of a model is preceded by a line about it."""
        with self._lock, self._store.appending() as chain:
            if model.sha256 not in self._known and self._store.find(model.sha256) is None:
                chain.add("model", model.sha256, {
                    "model": model.sha256, "name": model.name, "place": str(model.place), "recipe": model.recipe,
                    "info": model.info, "environment": environment(),
                })  # fmt: skip
            for item in decisions:
                told = {} if item.explained is None else {"explained": dict(item.explained)}
                chain.add(EXPLANATION if told else PREDICTION, item.id, {
                    "id": item.id, "model": model.sha256, "data": model.info.get("data_fingerprint"),
                    "inputs": dict(item.inputs), "outputs": {name: _short(answer) for name, answer in item.outputs.items()},
                    **told,
                })  # fmt: skip
        self._known.add(model.sha256)  # only once it is on disk

    def followed(
        self, model: Facts, answers: Iterable[Given | Other]
    ) -> Iterator[tuple[str, Given] | tuple[None, Other]]:
        """Each answer with its id, once it is written down, as a server writes it; a row that could not be read (an error in
        the place of its answer) has none."""
        left = iter(answers)
        while some := list(itertools.islice(left, TOGETHER)):
            named = [(None if isinstance(item, Exception) else uuid.uuid4().hex, item) for item in some]
            self.record(model, [
                Decision(id=id, inputs=item.inputs or {}, outputs=plain(item.to_dict()))
                for id, item in named if id is not None and not isinstance(item, Exception)
            ])  # fmt: skip
            yield from named  # type: ignore[misc]

    def verify(self, expect: str | None = None) -> Verification:
        """Go through all lines. expect: NUMBER:HASH of a line as it was written down elsewhere."""
        with self._lock:
            head = self._store.head()
            problems, last = [], (0, START)
            wanted = None if expect is None else _anchor(expect)
            for number, name, line, given in self._store.lines():
                problems += _wrong(number, name, line, given, last)
                if wanted is not None and wanted[0] == number and wanted[1] != given:
                    problems.append(f"line {number}: its hash is not the one that was written down")
                last = (number, given)
            if head is not None and last != head:
                lost = head[0] > last[0]
                problems.append(
                    _missing(last[0] + 1, head[0]) if lost else f"line {last[0]} is not the last one that was written"
                )
            if head is None and last[0]:
                problems.append("the number and hash of the last line are missing")
            if wanted is not None and wanted[0] > last[0]:
                problems.append(f"there is no line {wanted[0]}, which was written down")
            return Verification(last[0], f"{last[0]}:{last[1]}", tuple(problems))

    def show(
        self, id: str, *, run: str | Path | None = None, contents: bool = True, progress: Progress | None = None
    ) -> Shown:
        """The last decision of that id, and back to its model, recipe, data, code and environment, each held against what is on
        disk now. run: where the run is, if the model was moved away from it. contents: hash the data files anew, too;
        progress(done, of). DataError for an unknown id."""
        with self._lock:
            line = self._store.find(id)
            decision = None if line is None else parse_json(line.encode())
            if decision is None or decision["kind"] not in (PREDICTION, EXPLANATION):
                raise DataError(
                    f"the log has no decision {id[:100]!r}. Fix: give the id of an answer, as it was given."
                )
            told = self._store.find(decision["model"])
            model = {} if told is None else parse_json(told.encode())
            lines = [self._link(item) for item in (decision, model) if item]
        place, info = Path(model.get("place", "")), model.get("info") or {}
        found = run_of(place, info) if run is None else Path(run)
        links = (*lines, *trace(model, found, contents=contents, progress=progress))
        return Shown(decision, model, links, _data_of(found, model))

    def _link(self, entry: Mapping[str, Any]) -> Link:
        """One line of the log beside the one before it."""
        number = int(entry["number"])
        around = dict(self._store.hashes(number - 1, number))
        last, line = around.get(number - 1, START if number == 1 else ""), self._store.find(_name_of(entry)) or ""
        state: State = "same" if _follows(last, line) == around.get(number) else "changed"
        return Link("log", state, f"line {number}, {entry['kind']} (`audit verify` goes through all lines)")

    def close(self) -> None:
        """Let go of the file or the server."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---- the chain -------------------------------------------------------------------------------------------------------


class _Chain:
    """New lines after the last one."""

    def __init__(self, number: int, last: str) -> None:
        self.number, self.last = number, last
        self.lines: list[tuple[int, str, str, str]] = []

    def add(self, kind: str, name: str, values: Mapping[str, Any]) -> None:
        self.number += 1
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
        entry = {"number": self.number, "time": now, "kind": kind, **values}
        line = json.dumps(entry, ensure_ascii=True, allow_nan=False, sort_keys=True)
        self.last = _follows(self.last, line)
        self.lines.append((self.number, name, line, self.last))


def _follows(last: str, line: str) -> str:
    return hashlib.sha256(f"{last}\n{line}".encode()).hexdigest()


def _wrong(number: int, name: str, line: str, given: str, last: tuple[int, str]) -> list[str]:
    """What is wrong with a line, given the number and hash of the one before."""
    found = []
    if number <= last[0]:
        found.append(f"line {number}: it was put in")
    elif number > last[0] + 1:
        found.append(_missing(last[0] + 1, number - 1))
    elif _follows(last[1], line) != given:
        found.append(f"line {number}: it was edited, moved or put in, or the line before it was")
    try:
        entry = parse_json(line.encode())
        if entry["number"] != number or _name_of(entry) != name:
            found.append(f"line {number}: its number or its id is not the one in its text")
    except (ValueError, KeyError, TypeError):
        found.append(f"line {number}: its text is no line of this log")
    return found


def _name_of(entry: Mapping[str, Any]) -> str:
    return str(entry["model"] if entry["kind"] == "model" else entry["id"])


def _missing(first: int, last: int) -> str:
    return f"line {first} is missing" if first == last else f"lines {first} to {last} are missing"


def _anchor(text: str) -> tuple[int, str]:
    number, _, value = text.partition(":")
    if not number.isdigit() or len(value) != len(START):
        raise refusal(field="--expect", got=text, allowed="NUMBER:HASH, as verify prints it", fix="copy the line that begins with 'head'",
                      error=DataError)  # fmt: skip
    return int(number), value


def _short(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as the log keeps it: whole, or its hash in the place of what is long."""
    found = {}
    for name, value in answer.items():
        text = json.dumps(value, sort_keys=True)
        long = len(text) > LARGE
        found[name] = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "characters": len(text)} if long else value
    return found


def _data_of(run: Path | None, model: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the run says of its data, if it is still the data that the model was trained on."""
    try:
        found = None if run is None else parse_json((run / "data.json").read_bytes())
    except (OSError, ValueError):
        return None
    known = model.get("info", {}).get("data_fingerprint")
    return found if isinstance(found, dict) and found.get("fingerprint") == known else None


# ---- where the lines are kept ----------------------------------------------------------------------------------------


class _Store:
    """Lines in two tables of a database, by the DB-API. What differs between databases is in the classes below."""

    mark = "?"  # of a parameter

    def connection(self) -> Any:
        raise NotImplementedError

    def begin(self) -> None:
        """Begin a transaction that no other writer shares."""
        raise NotImplementedError

    def run(self, text: str, values: Sequence[Any] = ()) -> Any:
        return self.connection().execute(text.replace("?", self.mark), values)

    @contextlib.contextmanager
    def appending(self) -> Iterator[_Chain]:
        """One transaction: what is added to the chain in it is there when it ends, or nothing of it."""
        self.begin()
        try:
            head = self.head()
            chain = _Chain(*(head or (0, START)))
            yield chain
            for line in chain.lines:
                self.run("INSERT INTO endwise_decisions (number, id, line, hash) VALUES (?, ?, ?, ?)", line)
            if head is None:
                self.run("INSERT INTO endwise_head (one, number, hash) VALUES (1, ?, ?)", (chain.number, chain.last))
            else:
                self.run("UPDATE endwise_head SET number = ?, hash = ? WHERE one = 1", (chain.number, chain.last))
            self.run("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):
                self.run("ROLLBACK")
            raise

    def head(self) -> tuple[int, str] | None:
        found = self.run("SELECT number, hash FROM endwise_head WHERE one = 1").fetchone()
        return None if found is None else (int(found[0]), str(found[1]))

    def lines(self) -> Iterator[tuple[int, str, str, str]]:
        raise NotImplementedError

    def find(self, name: str) -> str | None:
        found = self.run(
            "SELECT line FROM endwise_decisions WHERE id = ? ORDER BY number DESC LIMIT 1", (name,)
        ).fetchone()
        return None if found is None else str(found[0])

    def hashes(self, first: int, last: int) -> list[tuple[int, str]]:
        found = self.run("SELECT number, hash FROM endwise_decisions WHERE number BETWEEN ? AND ?", (first, last))
        return [(int(number), str(value)) for number, value in found.fetchall()]

    def close(self) -> None:
        self.connection().close()


class _Sqlite(_Store):
    """A file. Every transaction is on disk when it ends, also when the power fails."""

    def __init__(self, path: Path, create: bool) -> None:
        if not create and not path.is_file():
            raise SetupError(
                f"there is no decision log at {str(path)!r}. Fix: 'endwise serve RUN --log {path}' begins one."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
            for text in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", *TABLES):
                self._connection.execute(text)
        except (sqlite3.Error, OSError) as wrong:
            raise SetupError(
                f"{path} is no decision log that can be written: {wrong}. Fix: give another file."
            ) from None

    def connection(self) -> sqlite3.Connection:
        return self._connection

    def begin(self) -> None:
        self.run("BEGIN IMMEDIATE")

    def lines(self) -> Iterator[tuple[int, str, str, str]]:
        yield from self.run("SELECT number, id, line, hash FROM endwise_decisions ORDER BY number")


class _Postgres(_Store):
    """A server. A connection that was lost is made again for the next transaction."""

    mark = "%s"

    def __init__(self, address: str) -> None:
        self._address = address
        self._driver = need("psycopg", extra="postgres", what="a decision log in PostgreSQL")
        self._connection: Any = None
        self.begin()
        for text in TABLES:
            self.run(text)
        self.run("COMMIT")

    def connection(self) -> Any:
        if self._connection is None or self._connection.closed:
            try:
                self._connection = self._driver.connect(self._address, autocommit=True, connect_timeout=10)
            except self._driver.Error as wrong:
                raise SetupError(f"the decision log's server cannot be reached: {str(wrong).strip()}. Fix: start it, or "
                                 "give a path in the place of its address.") from None  # fmt: skip
        return self._connection

    def begin(self) -> None:
        try:
            self.run("BEGIN")
        except self._driver.OperationalError:
            self.connection().close()
            self.run("BEGIN")
        # one writer at a time, among all processes; readers are not kept waiting
        self.run("SELECT pg_advisory_xact_lock(hashtext('endwise_decisions'))")

    def lines(self) -> Iterator[tuple[int, str, str, str]]:
        with self.connection().transaction(), self.connection().cursor("endwise_lines") as cursor:
            cursor.itersize = 10_000
            yield from cursor.execute("SELECT number, id, line, hash FROM endwise_decisions ORDER BY number")


__all__ = ["Decision", "Decisions", "Shown", "Verification"]
