"""What a server says beside an answer: what it leans on, and which training rows are like it.

Both take longer than an answer, so they are made one after the other on a thread of their own, and few wait. Of a bundle
there is neither network nor run: parts are left out instead (left_out.py), and what that cannot tell is said. Not here: HTTP
(app.py), how explanations are made (endwise/explain.py).
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from endwise.errors import EndwiseError
from endwise.files import plain
from endwise.serve.left_out import left_out
from endwise.serve.problems import Problem
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


class Why:
    """Answers `POST /explain` and `POST /like`. Used from the server's loop alone."""

    def __init__(self, *, here: bool) -> None:
        """here: nobody but this machine asks, so that training rows may be shown."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="endwise-why")
        self._here = here
        self._waiting = 0
        self._examples: tuple[str, Examples] | None = None

    async def ask(
        self, what: str, version: Version, read: Callable[[], Mapping[str, Any]], setting: Setting, timeout_s: float
    ) -> dict[str, Any]:
        """what: 'explain' or 'like'. read: the raw values by input. Problem where there is no answer."""
        if self._waiting >= WAITING:
            raise Problem("busy", f"{self._waiting} explanations are waiting already: come again", None, 1)
        work = self._explained if what == "explain" else self._alike
        self._waiting += 1
        task = asyncio.get_running_loop().run_in_executor(self._pool, self._told, work, version, read, setting)
        task.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(task), timeout_s)
        except TimeoutError:
            raise Problem("timeout", f"no explanation within {timeout_s:g} s") from None
        finally:
            task.cancel()  # where it has not begun

    def close(self) -> None:
        """What has begun is ended."""
        self._pool.shutdown(cancel_futures=True)

    def _done(self, task: "asyncio.Future[Any]") -> None:
        self._waiting -= 1
        if not task.cancelled():
            task.exception()  # it was told, or nobody waits for it any more

    def _told(
        self,
        work: Callable[[Version, Mapping[str, Any], Setting], dict[str, Any]],
        version: Version,
        read: Callable[[], Mapping[str, Any]],
        setting: Setting,
    ) -> dict[str, Any]:
        try:
            found: dict[str, Any] = plain(work(version, read(), setting))
        except EndwiseError as wrong:
            raise Problem("bad_value", str(wrong), "of" if setting.get("of") else None) from None
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
