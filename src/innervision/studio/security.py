"""Who may ask: the studio's own page, from this machine or with the token, and nobody else.

Against DNS rebinding only known names are accepted as Host; against forged requests Origin must be ours, and
what changes anything needs a header that no other page can send without CORS, which is never given.
"""

from __future__ import annotations

import http.cookies
import ipaddress
import re
import secrets
import socket
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from innervision.errors import Invalid
from innervision.studio.problems import said
from innervision.studio.settings import Settings

HEADER = "x-innervision"
SAFE = frozenset(("GET", "HEAD"))
MOST_SENT = 2**20  # bytes of a request's body
MEASURED = frozenset(("/api/pictures", "/api/live"))  # these read theirs by limits of their own
_TOO_LONG = f"too much was sent: a request here has {MOST_SENT // 2**20} MiB at most"
_SHORTEST = 12  # characters of a token that guards another address

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    }
)


def is_local(host: str) -> bool:
    """Tell whether an address is this machine's own, out of reach for others."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check(settings: Settings) -> None:
    """Raise Invalid for an address that others reach without a token, or with one that is soon guessed."""
    token = settings.token
    if token is not None and not re.fullmatch(r"[A-Za-z0-9._~-]+", token):
        raise Invalid("a token is made of letters, digits and - . _ ~")
    if is_local(settings.host):
        return
    if token is None:
        raise Invalid(
            f"--host {settings.host} lets others reach the studio: give a --token too, such as "
            f"{secrets.token_urlsafe(16)}"
        )
    if len(token) < _SHORTEST:
        raise Invalid(f"the token has {len(token)} characters: give {_SHORTEST} or more, hard to guess")


class Guard:
    """Refuses what does not come from the studio's own page, and sets the headers that keep it safe."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings
        names = {"127.0.0.1", "localhost", "[::1]"}
        if not is_local(settings.host):
            names |= {_bracketed(settings.host), socket.gethostname().lower()}
        self.hosts = names - {"0.0.0.0", "[::]"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)  # a page that a command wrote has a stricter policy
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        refusal = self.refusal(scope, headers)
        if refusal is not None:
            await said(*refusal)(scope, receive, guarded)
            return
        if self.settings.token is not None and not self.known(headers):
            answer = self.admit(scope) or said(
                401, "a token is wanted: open the studio at the address that it printed, with ?token=…"
            )
            await answer(scope, receive, guarded)
            return
        own = scope["path"] in MEASURED
        length = headers.get("content-length", "")
        if not own and length.isdigit() and (len(length) > 12 or int(length) > MOST_SENT):
            await said(413, _TOO_LONG)(scope, receive, guarded)
            return
        await self.app(scope, receive if own else _bounded(receive), guarded)

    def refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Return why a request is refused, whoever it is from; None for one that is not."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.is_ours(hosts[0], scope):
            return 403, "the studio answers under its own address only: see what it printed when it started"
        origins = headers.getlist("origin")
        if origins and (len(origins) > 1 or not self.same(origins[0], hosts[0], scope)):
            return 403, "this request comes from another page: the studio answers its own alone"
        api = scope["path"].startswith("/api")
        if api and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "this request comes from another page: the studio answers its own alone"
        if scope["method"] not in SAFE and headers.get(HEADER) != "1":
            return 403, "a request that changes something needs the header X-Innervision: 1"
        return None

    def is_ours(self, host: str, scope: Scope) -> bool:
        """Tell whether a Host header names this server: a name that is known, or the very address asked."""
        name, _, port = host.lower().rpartition(":") if not host.endswith("]") else (host.lower(), "", "")
        if not name:
            name, port = host.lower(), ""
        served = scope.get("server") or (None, None)
        expected = {self.settings.port} if self.settings.port else {served[1]}
        if port not in {str(each) for each in expected} and not (port == "" and 80 in expected):
            return False
        # an address in figures cannot be rebound
        return name in self.hosts or (_figures(name) and name == _bracketed(str(served[0])))

    def same(self, origin: str, host: str, scope: Scope) -> bool:
        """Tell whether an Origin is the page that this server gave."""
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme == "http" and parts.netloc.lower() == host.lower() and self.is_ours(host, scope)

    @property
    def cookie(self) -> str:
        """The cookie's name; cookies know no ports, so it holds this one."""
        return f"innervision-{self.settings.port}"

    def known(self, headers: Headers) -> bool:
        """Tell whether a request brings the token, as cookie or as Authorization: Bearer."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.matches(given):
            return True
        jar: http.cookies.SimpleCookie = http.cookies.SimpleCookie()
        try:
            jar.load(headers.get("cookie", ""))
        except http.cookies.CookieError:
            return False
        return self.cookie in jar and self.matches(jar[self.cookie].value)

    def matches(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), (self.settings.token or "").encode())

    def admit(self, scope: Scope) -> RedirectResponse | None:
        """Return the answer to /?token=T: the cookie, and the page's address without it."""
        if scope["path"] != "/" or scope["method"] != "GET":
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not self.matches(given):
            return None
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie, given, httponly=True, samesite="strict", path="/")
        return answer


def _bounded(receive: Receive) -> Receive:
    """Return the same, which reads no further than the limit."""
    length = 0

    async def bounded() -> Message:
        nonlocal length
        message = await receive()
        length += len(message.get("body", b""))
        if length > MOST_SENT:
            raise HTTPException(413, _TOO_LONG)
        return message

    return bounded


def _bracketed(host: str) -> str:
    return f"[{host.lower()}]" if ":" in host else host.lower()


def _figures(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
