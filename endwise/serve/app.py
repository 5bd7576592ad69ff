"""The HTTP side: routes, one request's way from its bytes to its answer, what happens when it is given up.

Not here: who may ask (gate.py), batches (batching.py), the process (__init__.py).
"""

import asyncio
import contextlib
import json
import logging
import re
import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from endwise.decisions import Decision, Decisions
from endwise.errors import EndwiseError
from endwise.rows import Row
from endwise.serve.batching import Batcher, Task
from endwise.serve.body import cells_of, hashed
from endwise.serve.describe import openapi
from endwise.serve.drift import Drift
from endwise.serve.gate import Gate, is_loopback
from endwise.serve.gauges import Gauges
from endwise.serve.options import Options
from endwise.serve.problems import Problem
from endwise.serve.turns import Pace
from endwise.serve.version import Version, description_file
from endwise.serve.why import Why, settings_of
from endwise.serve.wire import Headers

log = logging.getLogger("endwise.serve")
ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
HELD_BYTES = 512 << 20  # of all bodies together
CLIENT_LEFT = 499  # nobody reads this answer; it is only counted
POLL_S = 1.0  # how often the model's folder is looked at
PAGE = Path(__file__).with_name("page.html")
State = tuple[str, tuple[tuple[str, int, int, int], ...]]
STATUS_KINDS = {404: "not_found", 405: "method_not_allowed"}


class Service:
    """What the routes share: the model that answers now, the queue before it, and what is counted."""

    def __init__(self, target: str | Path, options: Options) -> None:
        self.target, self.options = target, options
        self.gauges = Gauges()
        self.batcher = Batcher(
            self._finished, queue=options.queue, max_batch=options.max_batch, lanes=options.lanes, ran=self.gauges.ran,
            budget_s=None if options.p99_ms is None else options.p99_ms / 1000,
            recorded=None if options.log is None else self._record,
        )  # fmt: skip
        self.gauges.watch(self.batcher)
        self.log = None if options.log is None else Decisions.open(options.log, create=True)
        # a token on the loopback is how a server stands behind a proxy: then others ask as well
        self.here = is_loopback(options.host) and options.token is None
        self.why = Why(here=self.here)
        self.pace = Pace()
        self._drift: tuple[Version, Drift] | None = None  # of the version that answers
        self.draining = False
        self.held_bytes = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._changing = asyncio.Lock()
        self._page: dict[str, Any] = {}
        self._seen: State | None = None  # of the folder, when it was last loaded

    @property
    def version(self) -> Version | None:
        """The model that answers, once it has answered its first row."""
        return self.batcher.version

    # ---- versions ----------------------------------------------------------------------------------------------------

    async def load(self) -> Version:
        """Load what is in the folder, warm it up, and let it take over. What was being answered is answered by the old one.
        Raises what loading raises; then the old one stays."""
        async with self._changing:
            try:
                version = await asyncio.to_thread(self._loaded)
            except Exception:
                self.gauges.swaps.labels("failed").inc()
                raise
            self._page = openapi(version, here=self.here)
            self._drift = version, Drift({name: version.contracts[name] for name in version.inputs})
            self.gauges.drift.clear()
            self.batcher.version = version
            self.gauges.model.clear()
            self.gauges.model.labels(version.id).set(1)
            self.gauges.swaps.labels("done").inc()
            log.info("%s answers", version)
            return version

    def _loaded(self) -> Version:
        self._seen = _state(self.target)  # what is written from here on is another version
        version = Version.load(self.target, threads=self.options.threads)
        self.batcher.warm_up(version)
        return version

    async def reload(self) -> None:
        """`load` where nobody waits for the outcome: what is wrong is in the log and in the metrics."""
        try:
            await self.load()
        except EndwiseError as wrong:
            log.error("the old model goes on: %s", wrong)
        except Exception:
            log.exception("the old model goes on")

    async def watch(self) -> None:
        """Take over every new version as soon as it is whole."""
        while True:
            await asyncio.sleep(POLL_S)
            with contextlib.suppress(OSError, EndwiseError):
                if self._seen not in (None, await asyncio.to_thread(_state, self.target)):
                    await self.reload()

    # ---- one request -------------------------------------------------------------------------------------------------

    async def predict(self, request: Request) -> Response:
        """Bytes to answer. Problem where there is none."""
        began = time.monotonic()
        name = _id_of(request)
        if self.version is None:
            raise Problem("not_ready", "the model is still loading", None, 1)
        client = _client(request)
        self.batcher.check_room(client)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Task] = loop.create_future()
        deadline = began + self.options.timeout_s
        with contextlib.closing(_Held(self)) as held:
            body = await self._body(request, held, deadline)
            made = _Context(name, future)
            read = partial(self._read, made, body, request.headers.get("content-type", ""))
            task = Task(read, deadline, made, client)
            del body
            self.batcher.submit(task)
            try:
                await self._until(request, future, deadline)
            finally:
                task.abandoned = not future.done()
        self.gauges.latency.observe(time.monotonic() - began)
        return self._response(task, name)

    async def beside(self, what: str, request: Request) -> Response:
        """What else there is to say about a row: 'explain' or 'like'. The same body as of `predict`."""
        name, version, setting = _id_of(request), self.version, settings_of(what, request.query_params.multi_items())
        if version is None:
            raise Problem("not_ready", "the model is still loading", None, 1)
        deadline = time.monotonic() + self.options.timeout_s
        with contextlib.closing(_Held(self)) as held:
            body = await self._body(request, held, deadline)
            kind = request.headers.get("content-type", "")
            read = partial(cells_of, body, kind, version, self.options.limits)
            kept = None if self.log is None or what != "explain" else partial(self._record_reasons, version, name)
            future = self.why.ask(what, version, read, setting, _client(request), kept)
            try:
                await self._until(request, future, deadline)
            finally:
                future.cancel()
            found = future.result()
        answer = json.dumps({"id": name, "model": version.id, **found}, ensure_ascii=False).encode()
        return Response(answer, media_type="application/json", headers={"x-model-version": version.id})

    def _read(self, made: "_Context", body: bytes, content_type: str, version: Version) -> Row:
        cells = cells_of(body, content_type, version, self.options.limits)
        row = version.read(cells)
        if self.log is not None:
            made.inputs = hashed(cells)
        return row

    def _record(self, version: Version, tasks: Sequence[Task]) -> None:
        """Write down what was answered; nobody hears of it before."""
        assert self.log is not None
        found = []
        for task in tasks:
            assert isinstance(task.outcome, dict)
            found.append(Decision(id=task.context.id, inputs=task.context.inputs, outputs=task.outcome))
        self.log.record(version, found)

    def _record_reasons(self, version: Version, name: str, cells: Mapping[str, Any], told: dict[str, Any]) -> None:
        """The same of an answer that is given with its reasons, which are told by the raw values: those are not kept."""
        assert self.log is not None
        reasons = {key: told[key] for key in ("about", "method", "changed", "reliable", "verdict")}
        outputs = {told["output"]: told["answer"]}
        self.log.record(version, [Decision(id=name, inputs=hashed(cells), outputs=outputs, explained=reasons)])

    def turn_away(self, gate: Gate, client: str, headers: Headers) -> tuple[bytes, bytes, float] | None:
        """See `wire.TurnAway`: what costs next to nothing to refuse is no way to the processor. None where another answer is
        due, or an answer."""
        if self.version is None or self.draining or gate.problem(dict(headers)) is not None:
            return None
        busy = self.batcher.busy(client)
        if busy is None:
            return None
        self.gauges.requests.labels(str(busy.status)).inc()
        head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: %d\r\n" % (
            busy.retry_after_s or 1
        )
        return head, json.dumps(busy.to_dict()).encode(), self.refused(client)

    def refused(self, client: str) -> float:
        """Count a refusal. Returns the seconds to hold it back, of who floods."""
        self.gauges.shed.inc()
        return self.pace.refused(client, time.monotonic(), self.batcher.able_per_s())

    def close(self) -> None:
        """Once nothing is left to answer."""
        self.batcher.close()
        self.why.close()
        if self.log is not None:
            self.log.close()

    def metrics(self) -> bytes:
        """The page for Prometheus."""
        for name, score in (self._drift[1].scores() if self._drift is not None else {}).items():
            self.gauges.drift.labels(name).set(score)
        return self.gauges.text()

    async def _body(self, request: Request, held: "_Held", deadline: float) -> bytes:
        """All of it, refused as soon as it is too much or too slow."""
        most = self.options.limits.body_bytes
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem("unsupported_type", "a packed body is not unpacked: send it as it is", "Content-Encoding")
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > most:
            raise Problem("too_large", f"the body has {declared[:30]} bytes, more than the {most} allowed")
        parts = bytearray()
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                async for chunk in request.stream():
                    parts += chunk
                    if len(parts) > most:
                        raise Problem("too_large", f"the body has more than the {most} bytes allowed")
                    held.add(len(chunk))
        except TimeoutError:
            raise Problem("slow_body", "the body did not come in time") from None
        return bytes(parts)

    async def _until(self, request: Request, future: "asyncio.Future[Any]", deadline: float) -> None:
        """Wait for the answer, the client's leaving (ClientDisconnect) or the end of the time (Problem)."""
        left = asyncio.ensure_future(_left(request))
        either: set[asyncio.Future[Any]] = {future, left}
        try:
            await asyncio.wait(
                either, timeout=max(0.0, deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            gone = left.done()
            left.cancel()
        if not future.done():
            if gone:
                raise ClientDisconnect
            raise Problem("timeout", f"no answer within {self.options.timeout_s:g} s")

    def _response(self, task: Task, name: str) -> Response:
        outcome, version = task.outcome, task.version
        if isinstance(outcome, Problem):
            if outcome.status == 500:
                log.error("request %s failed", name, exc_info=outcome.__cause__)
            raise outcome
        if outcome is None or version is None:
            raise Problem("timeout", f"no answer within {self.options.timeout_s:g} s")
        body = json.dumps({"id": name, "model": version.id, "outputs": outcome}, ensure_ascii=False).encode()
        return Response(body, media_type="application/json", headers={"x-model-version": version.id})

    def _finished(self, tasks: Sequence[Task]) -> None:
        """Called on the batcher's threads: one word to the loop for all of them."""
        for task in tasks:
            if self._drift is not None and self._drift[0] is task.version and isinstance(task.outcome, dict):
                assert task.row is not None
                self._drift[1].saw(task.row)
        loop = self.loop
        assert loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
            loop.call_soon_threadsafe(self._settle, tasks)

    def _settle(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            if task.outcome is None:
                self.gauges.dropped.inc()
            if not task.context.future.done():
                task.context.future.set_result(task)


@dataclass(slots=True)
class _Context:
    """What belongs to a task and not to its batch."""

    id: str
    future: "asyncio.Future[Task]"
    inputs: dict[str, str] = field(default_factory=dict)  # hashes, where decisions are written down


class _Held:
    """The bytes of one body among those of all: Problem 'busy' where they are too many together."""

    def __init__(self, service: Service) -> None:
        self._service, self._count = service, 0

    def add(self, count: int) -> None:
        if self._service.held_bytes + count > HELD_BYTES:
            raise Problem("busy", "too many large requests at once: come again", None, 1)
        self._service.held_bytes += count
        self._count += count

    def close(self) -> None:
        self._service.held_bytes -= self._count
        self._count = 0


def _id_of(request: Request) -> str:
    """The caller's own name of a request, or a new one."""
    name = request.headers.get("x-request-id") or uuid.uuid4().hex
    if not ID.fullmatch(name):
        raise Problem("bad_request", "X-Request-Id holds letters, digits and ._:- alone, at most 64", "X-Request-Id")
    return name


def _client(request: Request) -> str:
    return "" if request.client is None else request.client.host


async def _left(request: Request) -> None:
    """Returns when the client has gone: after the body nothing else comes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _state(target: str | Path) -> State:
    """Of all files of the model: they take their places one after the other, and what is read in between is no model."""
    file = description_file(target).resolve()
    found = [(other.name, other.stat()) for other in sorted(file.parent.iterdir()) if other.is_file()]
    return str(file), tuple((name, stat.st_mtime_ns, stat.st_ino, stat.st_size) for name, stat in found)


def build(service: Service) -> Gate:
    """The application: routes, and the gate before all of them."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)

    app.add_route("/predict", service.predict, methods=["POST"])  # without FastAPI's care for handlers with arguments

    @app.post("/explain")
    async def explain(request: Request) -> Response:
        return await service.beside("explain", request)

    @app.post("/like")
    async def like(request: Request) -> Response:
        return await service.beside("like", request)

    @app.get("/")
    async def page() -> Response:
        nonce = secrets.token_urlsafe(16)
        return Response(PAGE.read_text(encoding="utf-8").replace("NONCE", nonce), media_type="text/html", headers={
            "content-security-policy": f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; "
            "img-src data: blob:; media-src data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'",
            "referrer-policy": "no-referrer", "x-content-type-options": "nosniff",
        })  # fmt: skip

    @app.get("/livez")
    async def livez() -> Response:
        return Response("alive\n", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        if service.draining or service.version is None:
            raise Problem("not_ready", "draining" if service.draining else "the model is still loading", None, 1)
        return Response(f"{service.version.id}\n", media_type="text/plain")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/openapi.json")
    async def described() -> Response:
        if service.version is None:
            raise Problem("not_ready", "the model is still loading", None, 1)
        return Response(json.dumps(service._page), media_type="application/json")

    _add_handlers(app, service)
    return Gate(_Counted(app, service), token=service.options.token, host=service.options.host)


def _add_handlers(app: FastAPI, service: Service) -> None:
    @app.exception_handler(Problem)
    async def problem(request: Request, wrong: Problem) -> Response:
        if wrong.kind == "busy":
            await asyncio.sleep(service.refused(_client(request)))
        headers = {} if wrong.retry_after_s is None else {"retry-after": str(wrong.retry_after_s)}
        return Response(json.dumps(wrong.to_dict()), wrong.status, headers, "application/json")

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, wrong: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_LEFT)

    @app.exception_handler(HTTPException)
    async def other(request: Request, wrong: HTTPException) -> Response:
        found = Problem(STATUS_KINDS.get(wrong.status_code, "bad_request"), str(wrong.detail))
        return Response(json.dumps(found.to_dict()), wrong.status_code, dict(wrong.headers or {}), "application/json")

    @app.exception_handler(Exception)
    async def bug(request: Request, wrong: Exception) -> Response:
        return Response(json.dumps(Problem("failed", "the server failed; its log says why").to_dict()), 500,
                        media_type="application/json")  # fmt: skip


class _Counted:
    """Counts answers to predictions by status, and asks clients to end their connections while the server drains."""

    def __init__(self, app: Any, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Any]) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                if scope["path"] == "/predict":
                    self.service.gauges.requests.labels(str(message["status"])).inc()
                if self.service.draining:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self.app(scope, receive, counted)
