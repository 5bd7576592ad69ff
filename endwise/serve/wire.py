"""Bytes to requests: uvicorn's own protocol on llhttp, a quarter of the cost of its pure Python one, with an end to what a
stranger may send before a body, and with refusals that cost next to nothing: who asks for a prediction where there is no
room is told so from here, before anything else looks at the request. Not here: bodies and room (app.py), who may ask (gate.py)."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 << 10  # of a request's line and its headers, trailers included
HEAD_S = 30.0  # from the opening of a connection, or the first byte of a later request, to the end of its headers

Headers = Sequence[tuple[bytes, bytes]]
# of an address, for `POST /predict`: nothing, or status line, headers and body of a refusal and the seconds to hold it back
TurnAway = Callable[[str, Headers], "tuple[bytes, bytes, float] | None"]


class Wire(HttpToolsProtocol):
    """Refuses heads without an end, since llhttp itself counts nothing, and what `turn_away` does.

    While a refusal is held back nothing is read from its connection: TCP makes the client wait."""

    def __init__(self, *args: Any, turn_away: TurnAway, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turn_away = turn_away
        self._head_bytes = 0
        self._unheard_bytes = 0  # since the parser last told of anything
        self._timer: asyncio.TimerHandle | None = None
        self._refused = False  # the request that comes in now goes no further than its head
        self._complete = True  # it has come in
        self._keeps = True  # the connection goes on after it
        self._held: tuple[asyncio.TimerHandle, bytes, bytes] | None = None  # its answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._held is not None:
            self._held[0].cancel()
            self._held = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unheard_bytes += len(data)
        super().data_received(data)
        if self._unheard_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        if self._held is not None:
            raise ValueError("it asks on before it was answered, in a flood")
        super().on_message_begin()
        self._head_bytes = 0
        self._refused = False
        if self._timer is None:
            self._start_timer()

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_timer()
        refusal = self._refusal()
        if refusal is None:
            super().on_headers_complete()
            return
        head, body, held_s = refusal
        self._refused, self._complete = True, self.expect_100_continue  # who waits for a 100 sends no body now
        self._keeps = self.parser.should_keep_alive() and not self.expect_100_continue
        self._start_timer()  # for the body, which nobody reads
        if held_s:
            self.flow.pause_reading()
            self._held = self.loop.call_later(held_s, self._tell_held), head, body
        else:
            self._tell(head, body)

    def on_body(self, body: bytes) -> None:
        self._unheard_bytes = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._unheard_bytes = 0
        if not self._refused:
            super().on_message_complete()
            return
        self._complete = True
        if self._held is None:
            self._go_on()

    def shutdown(self) -> None:
        """No refusal is held back any more."""
        if self._held is not None:
            self._held[0].cancel()
            self._keeps = False
            self._tell_held()
        super().shutdown()

    def _refusal(self) -> tuple[bytes, bytes, float] | None:
        """Of a request that waits for no other one on its connection."""
        plain = self.url == b"/predict" and self.parser.get_method() == b"POST" and not self.parser.should_upgrade()
        waits = self.flow.write_paused or (self.cycle is not None and not self.cycle.response_complete)
        if not plain or waits or self.parser.get_http_version() != "1.1":
            return None
        return self._turn_away("" if self.client is None else self.client[0], self.headers)

    def _tell_held(self) -> None:
        assert self._held is not None
        _, head, body = self._held
        self._held = None
        self._tell(head, body)

    def _tell(self, head: bytes, body: bytes) -> None:
        dated = b"".join(b"%b: %b\r\n" % item for item in self.server_state.default_headers)
        end = b"\r\n" if self._keeps else b"connection: close\r\n\r\n"
        self.transport.write(b"%b%bcontent-length: %d\r\n%b%b" % (head, dated, len(body), end, body))
        self.flow.resume_reading()
        if self._complete:
            self._go_on()

    def _go_on(self) -> None:
        """It was refused, and all of it has come in: the next request, or the end."""
        self._stop_timer()
        if self._keeps:
            self.on_response_complete()
        else:
            self.transport.close()

    def _count(self, *parts: bytes) -> None:
        """Raises where there are too many: the parser then stops and the client is told."""
        self._unheard_bytes = 0
        self._head_bytes += sum(map(len, parts))
        if self._head_bytes > HEAD_BYTES:
            raise ValueError("the head of a request does not end")

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(HEAD_S, self._late)

    def _late(self) -> None:
        """What has to come has not; an answer to what came before it is not cut off."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._start_timer()
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
