"""Serve: a model behind HTTP. Raw files or JSON in, final answers out, on this machine unless a token says otherwise.

    with serving("runs/digits", port=0) as server:
        httpx.post(f"{server.url}/predict", content=Path("new.png").read_bytes())

Here: the process: its socket, its signals, its end. Not here: routes (app.py), batches (batching.py), one model
(version.py), what a body is (body.py), who may ask (gate.py).
"""

import asyncio
import contextlib
import dataclasses
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from endwise.errors import SetupError, need
from endwise.serve.options import Options
from endwise.serve.version import description_file

if TYPE_CHECKING:
    from endwise.serve.app import Service

EXTRA = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")
LINGER_S = 0.5  # between 'not ready' and closed doors: whoever sends requests here has time to see it
KEEP_ALIVE_S = 65  # longer than the usual proxies keep an idle connection


def serve(
    target: str | Path, options: Options | None = None, *, ready: Callable[[str, Any], None] | None = None
) -> None:
    """Serve a run or a bundle until SIGTERM or Ctrl-C; then answer what was taken, and return.

    ready: called with the address and the `Version` once the first row was answered. SIGHUP loads the folder again.
    Raises ModelError where there is no model, RecipeError where another machine could ask without a token, SetupError
    where the port is taken.
    """
    _Server(target, options or Options(), ready).run()


@contextlib.contextmanager
def serving(target: str | Path, **options: Any) -> Iterator["Serving"]:
    """The same in a thread, for a notebook or a test: ready when the block begins, drained when it ends."""
    found: list[Any] = []
    up = threading.Event()

    def ready(url: str, version: Any) -> None:
        found.append(url)
        up.set()

    server = _Server(target, Options(**options), ready)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            server.run()
        except BaseException as wrong:
            failed.append(wrong)
        finally:
            up.set()

    thread = threading.Thread(target=run, name="endwise-serve")
    thread.start()
    up.wait()
    try:
        if failed:
            raise failed[0]
        yield Serving(found[0], server.service)
    finally:
        server.stop()
        thread.join()


@dataclasses.dataclass(frozen=True)
class Serving:
    """A server in a thread of this process."""

    url: str
    service: "Service"

    def reload(self) -> None:
        """Load the folder again, now; returns when the new version answers. Raises what loading raises."""
        loop = self.service.loop
        assert loop is not None
        asyncio.run_coroutine_threadsafe(self.service.load(), loop).result()


class _Server:
    """uvicorn with our own beginning and end."""

    def __init__(self, target: str | Path, options: Options, ready: Callable[[str, Any], None] | None) -> None:
        for module in EXTRA:
            need(module, extra="serve", what="serving a model")
        from endwise.serve.app import Service, build

        description_file(target)  # a folder without a model is refused before anything starts
        self.service, self.options, self._ready = Service(target, options), options, ready
        self._app = build(self.service)
        self._failure: BaseException | None = None
        self._uvicorn: Any = None

    def run(self) -> None:
        """Until it is told to stop. Raises what kept the model from loading."""
        import uvicorn

        from endwise.serve.wire import Wire

        outer = self
        wire: Any = partial(Wire, turn_away=partial(self.service.turn_away, self._app))

        class Server(uvicorn.Server):
            """Signals begin the draining in the place of the end, and are not raised again after it."""

            def handle_exit(self, sig: int, frame: FrameType | None) -> None:
                if outer.service.draining and sig == signal.SIGINT:
                    self.force_exit = True
                outer.stop()

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                """Close the doors first: who was let in a moment ago is still writing its question, and is answered."""
                for listener in self.servers:
                    listener.close()
                await asyncio.sleep(LINGER_S)
                await super().shutdown(sockets)

        with contextlib.closing(self.service), _bound(self.options.host, self.options.port) as opened:
            config = uvicorn.Config(
                self._app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, ws="none",
                lifespan="off", http=wire, timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=max(1, round(self.options.drain_s)),
            )  # fmt: skip
            self._uvicorn = Server(config)
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(self._serve(opened))
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop being ready, answer what comes in for a moment more, then what was taken; callable from anywhere."""
        loop = self.service.loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                loop.call_soon_threadsafe(self._drain)

    async def _serve(self, opened: socket.socket) -> None:
        loop = self.service.loop = asyncio.get_running_loop()
        background = {loop.create_task(self._begin(_url(self.options.host, opened)))}
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            loop.add_signal_handler(signal.SIGHUP, lambda: background.add(loop.create_task(self.service.reload())))
        if self.options.watch:
            background.add(loop.create_task(self.service.watch()))
        await self._uvicorn.serve(sockets=[opened])
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)

    async def _begin(self, url: str) -> None:
        """Load the model while /livez answers already."""
        try:
            version = await self.service.load()
            if self._ready is not None:
                self._ready(url, version)
        except Exception as wrong:
            self._failure = wrong
            self._uvicorn.should_exit = True

    def _drain(self) -> None:
        if not self.service.draining:
            logging.getLogger("endwise.serve").info("draining")
            self.service.draining = True
            asyncio.get_running_loop().call_later(LINGER_S, self._close)

    def _close(self) -> None:
        self._uvicorn.should_exit = True


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket on that address, or SetupError."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, number)
    except OSError as wrong:
        raise SetupError(f"--host {host}: {wrong.strerror}. Fix: give an address of this machine.") from None
    with opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind(address)
            opened.listen(2048)
        except OSError as wrong:
            raise SetupError(
                f"{host}:{port} cannot be served: {wrong.strerror}. Fix: give another --port, or --port 0 for a free one."
            ) from None
        yield opened


def _url(host: str, opened: socket.socket) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{opened.getsockname()[1]}"


__all__ = ["Options", "Serving", "serve", "serving"]
