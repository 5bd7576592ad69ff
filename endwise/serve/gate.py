"""Who may ask at all, before anything else looks at a request: the token, the name in Host, the origin of a page.

An ASGI application around the server's, so that no route, method or path is forgotten. Not here: bodies and answers.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Mapping
from typing import Any

from endwise.errors import RecipeError, require
from endwise.serve.problems import Problem

LEAST_TOKEN = 16  # characters: a shorter one can be guessed
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def check_place(host: str, token: str | None) -> None:
    """Refuse to be reachable from elsewhere without a token, and a token that can be guessed."""
    require(
        token is None or len(token) >= LEAST_TOKEN, field="--token", got="*" * len(token or ""),
        allowed=f"at least {LEAST_TOKEN} characters",
        fix="python -c 'import secrets; print(secrets.token_urlsafe())' makes one",
    )  # fmt: skip
    if token is None and not is_loopback(host):
        raise RecipeError(
            f"--host = {host!r} is not allowed: without a token only this machine may ask. Fix: give --token (or "
            "ENDWISE_TOKEN), or leave --host out."
        )


def is_loopback(host: str) -> bool:
    """Does this name only this machine?"""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    """Lets a request through to `app`, or answers it. Without a token the name in Host has to be this machine's: a page
    from elsewhere could otherwise let its own name point here (DNS rebinding). A page of another origin is never let
    through. With a token it is asked for on every route: `Authorization: Bearer TOKEN`, or as the password of a browser's
    own form."""

    def __init__(self, app: Any, *, token: str | None, host: str) -> None:
        self.app = app
        self.hosts = LOOPBACK | {host}
        self._token = None if token is None else _digest(token.encode())

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = {name.lower(): value for name, value in scope["headers"]}
            problem = self.problem(headers)
            if problem is not None:
                await _refuse(problem, send)
                return
        elif scope["type"] != "lifespan":  # no websockets here
            return
        await self.app(scope, receive, send)

    def problem(self, headers: Mapping[bytes, bytes]) -> Problem | None:
        """What a request with these headers, their names in small letters, is told in the place of an answer."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._token is None and _name(host) not in self.hosts:
            return Problem(
                "forbidden", f"this server is not {host[:100]!r}: ask for localhost, or start it with a token"
            )
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower().partition("://")[2] != host:
            return Problem("forbidden", "a page of another origin may not ask here")
        if self._token is not None and not hmac.compare_digest(_digest(_given(headers)), self._token):
            return Problem("unauthorized", "this server wants its token: Authorization: Bearer TOKEN")
        return None


def _name(host: str) -> str:
    """Host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _given(headers: Mapping[bytes, bytes]) -> bytes:
    kind, _, value = headers.get(b"authorization", b"").partition(b" ")
    if kind.lower() == b"bearer":
        return value.strip()
    if kind.lower() == b"basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


def _digest(token: bytes) -> bytes:
    """Of one length whatever is given, so that comparing takes one time."""
    return hashlib.sha256(token).digest()


async def _refuse(problem: Problem, send: Any) -> None:
    body = json.dumps(problem.to_dict()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if problem.status == 401:
        headers += [(b"www-authenticate", b"Bearer"), (b"www-authenticate", b'Basic realm="endwise"')]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
