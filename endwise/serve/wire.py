"""Bytes to requests: uvicorn's own protocol on llhttp, a quarter of the cost of its pure Python one, with an end to what a
stranger may send before a body. Not here: bodies (app.py), who may ask (gate.py)."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 << 10  # of a request's line and its headers, trailers included
HEAD_S = 30.0  # from the opening of a connection, or the first byte of a later request, to the end of its headers


class Wire(HttpToolsProtocol):
    """Refuses heads without an end: llhttp itself counts nothing."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_bytes = 0
        self._unheard_bytes = 0  # since the parser last told of anything
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unheard_bytes += len(data)
        super().data_received(data)
        if self._unheard_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_S, self.transport.close)

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unheard_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unheard_bytes = 0
        super().on_message_complete()

    def _count(self, *parts: bytes) -> None:
        """Raises where there are too many: the parser then stops and the client is told."""
        self._unheard_bytes = 0
        self._head_bytes += sum(map(len, parts))
        if self._head_bytes > HEAD_BYTES:
            raise ValueError("the head of a request does not end")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
