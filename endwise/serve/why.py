"""What a server says beside an answer: what it leans on, and which training rows are like it.

Both take longer than an answer, so they are made one after the other on a thread of their own, and few wait: clients take
turns, each has its share of the places, and who leaves gives his up. Of a bundle there is neither network nor run: parts are left out instead (left_out.py), and what that cannot tell is said. Not here: HTTP
(app.py), how explanations are made (endwise/explain.py).
"""

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from endwise.errors import EndwiseError
from endwise.files import plain
from endwise.serve.left_out import left_out
from endwise.serve.problems import Problem
from endwise.serve.turns import Turns
from endwise.serve.version import Version, no_files

if TYPE_CHECKING:
    from endwise.explain import Examples
    from endwise.explanation import Row
    from endwise.model import Model

WAITING = 8  # questions at once; another one is asked to come again
MOST_ALIKE = 50
LONGEST = 200  # characters of what a setting is
SETTINGS = {"explain": ("of", "method", "grade", "drawn"), "like": ("count", "drawn")}
NEEDS_A_RUN = "a bundle holds no training rows: serve the run's folder to see some"
BUNDLE_METHODS = ("", "auto", "occlusion")
Setting = Mapping[str, str]  # of the address


@dataclass(slots=True, eq=False)
class _Question:
    """One that waits or is being answered."""

    work: Callable[[], dict[str, Any]]
    future: "asyncio.Future[dict[str, Any]]"
    client: str
    turn: int = 0
    number: int = 0


class Why:
    """Answers `POST /explain` and `POST /like`. Used from the server's loop alone."""

    def __init__(self, *, here: bool) -> None:
        """here: nobody but this machine asks, so that training rows may be shown."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="endwise-why")
        self._here = here
        self._turns = Turns()
        self._line: list[tuple[int, int, _Question]] = []  # a heap
        self._running: _Question | None = None
        self._examples: tuple[str, Examples] | None = None

    def ask(
        self,
        what: str,
        version: Version,
        read: Callable[[], Mapping[str, Any]],
        setting: Setting,
        client: str,
        kept: "Callable[[Mapping[str, Any], dict[str, Any]], None] | None" = None,
    ) -> "asyncio.Future[dict[str, Any]]":
        """What there is to say, once it is found. what: 'explain' or 'like'. read: the raw values by input. setting: as
        `settings_of` has it. kept: called with the values and what was found, before anybody hears of it. Who does not wait any more cancels it. Problem where too many wait; the future's where there is no answer."""
        loop = asyncio.get_running_loop()
        self._forget()
        self._check_room(client)
        work = partial(self._told, self._explained if what == "explain" else self._alike, version, read, setting, kept)
        question = _Question(work, loop.create_future(), client)
        self._turns.join(question, loop.time())
        heapq.heappush(self._line, (question.turn, question.number, question))
        self._begin()
        return question.future

    def close(self) -> None:
        """What has begun is ended."""
        self._pool.shutdown(cancel_futures=True)

    def _check_room(self, client: str) -> None:
        """Problem where all places are taken, by this client its own share."""
        held = self._turns.held
        waiting, mine = sum(held.values()), held.get(client, 0)
        clients = len(held) + (mine == 0)
        if waiting >= WAITING and (clients == 1 or mine >= max(1, WAITING // clients) or waiting >= 2 * WAITING):
            raise Problem("busy", f"{waiting} explanations are waiting already: come again", None, 1)

    def _begin(self) -> None:
        """The one whose turn it is, if none is being answered."""
        self._forget()
        if self._running is None and self._line:
            *_, question = heapq.heappop(self._line)
            self._running = question
            task = asyncio.get_running_loop().run_in_executor(self._pool, question.work)
            task.add_done_callback(partial(self._ended, question))

    def _ended(self, question: _Question, task: "asyncio.Future[dict[str, Any]]") -> None:
        self._running = None
        self._turns.leave(question)
        wrong = None if task.cancelled() else task.exception()
        if not question.future.done():
            if task.cancelled():
                question.future.cancel()
            elif wrong is not None:
                question.future.set_exception(wrong)
            else:
                question.future.set_result(task.result())
        self._begin()

    def _forget(self) -> None:
        """Who left gives up his place; what has begun cannot be stopped."""
        for *_, question in self._line:
            if question.future.cancelled():
                self._turns.leave(question, served=False)
        self._line = [item for item in self._line if not item[2].future.cancelled()]
        heapq.heapify(self._line)

    def _told(
        self,
        work: Callable[[Version, Mapping[str, Any], Setting], dict[str, Any]],
        version: Version,
        read: Callable[[], Mapping[str, Any]],
        setting: Setting,
        kept: "Callable[[Mapping[str, Any], dict[str, Any]], None] | None",
    ) -> dict[str, Any]:
        try:
            cells = read()
            found: dict[str, Any] = plain(work(version, cells, setting))
        except EndwiseError as wrong:
            raise Problem("bad_value", str(wrong), "of" if setting.get("of") else None) from None
        if kept is not None:
            kept(cells, found)
        return found

    def _explained(self, version: Version, cells: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
        grade, drawn = (_yes(setting, name, default=name == "grade") for name in ("grade", "drawn"))
        if version.model is None:
            if setting.get("method", "") not in BUNDLE_METHODS:
                raise Problem("bad_value", "a bundle has no network to look into: only occlusion", "method")
            return left_out(version, cells, setting.get("of", "")).to_dict(drawn=drawn)
        from endwise.explain import asked
        from endwise.explanation import AUTO, METHODS, explained

        method = setting.get("method") or AUTO
        if method not in METHODS:
            raise Problem("bad_value", f"{method[:40]!r} is none of {', '.join(METHODS)}", "method")
        output, which = asked(version.model, setting.get("of") or None)
        found = explained(
            version.model, _row(version, version.model, cells), output=output, which=which,
            method=method, grade=grade,
        )  # fmt: skip
        told = found.to_dict()
        if drawn:
            for item in found.highlights:
                told["inputs"][item.name]["html"] = item.html()
        return told

    def _alike(self, version: Version, cells: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
        if not self._here:
            raise Problem(
                "forbidden", "training rows are shown to this machine alone: serve on the loopback to see them"
            )
        count, drawn = _count(setting.get("count", "5")), _yes(setting, "drawn", default=False)
        if version.model is None:
            raise Problem("not_found", NEEDS_A_RUN)
        examples, row = self._known(version), _row(version, version.model, cells)
        return {
            "like": [
                {**item.to_dict(), **({"shown": examples.shown(item.row)} if drawn else {})}
                for item in examples.nearest(row, count)
            ]
        }

    def _known(self, version: Version) -> "Examples":
        """The training rows, read when they are first asked for."""
        from endwise.explain import Examples

        if self._examples is None or self._examples[0] != version.sha256:
            model = version.model
            if model is None or model.run is None:
                raise Problem("not_found", NEEDS_A_RUN)
            try:
                self._examples = version.sha256, Examples.of(model.run, model)
            except (EndwiseError, OSError) as wrong:
                raise Problem("not_found", f"the training rows cannot be read: {str(wrong)[:300]}") from None
        return self._examples[1]


def _row(version: Version, model: "Model", cells: Mapping[str, Any]) -> "Row":
    """The row as `Version.read` reads it, with its raw coordinates. Problem as there."""
    from endwise.explain import row_from

    version.read(cells)
    return row_from(model, cells, no_files)


def settings_of(what: str, given: Sequence[tuple[str, str]]) -> Setting:
    """Those of an address, by name. Problem where one is unknown, given twice or long."""
    found: dict[str, str] = {}
    for name, value in given:
        if name not in SETTINGS[what]:
            known = ", ".join(SETTINGS[what])
            raise Problem("bad_value", f"{name[:40]!r} is no setting of /{what}: {known}", name[:LONGEST])
        if name in found:
            raise Problem("bad_value", "given more than once", name)
        if len(value) > LONGEST:
            raise Problem("bad_value", f"at most {LONGEST} characters", name)
        found[name] = value
    return found


def _yes(setting: Setting, name: str, *, default: bool) -> bool:
    found = {"": default, "yes": True, "no": False}.get(setting.get(name, ""))
    if found is None:
        raise Problem("bad_value", f"{setting[name][:40]!r} is neither yes nor no", name)
    return found


def _count(said: str) -> int:
    if not said.isdecimal() or not 1 <= int(said) <= MOST_ALIKE:
        raise Problem("bad_value", f"{said[:40]!r} is no whole number from 1 to {MOST_ALIKE}", "count")
    return int(said)


__all__ = ["Why", "settings_of"]
