"""What stands before Gradio: every request passes here first, and only what the page needs goes on.

Gradio offers many routes (files, proxies, deep links, component servers, recordings) and lets a payload name
any file or address. Here are the few routes that the page uses; uploads are kept by `mmrerank_app.uploads`,
and a payload can name nothing else. Any ASGI application can stand behind it.
"""

from __future__ import annotations

import asyncio
import json
import math
import mimetypes
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmrerank.errors import InputError, UsageError
from mmrerank_app.hosts import Hosts
from mmrerank_app.limits import PageLimits
from mmrerank_app.uploads import Uploads, new_session, owner_of, reference

COOKIE = "mmrerank_session"
_API = "/gradio_api"
_READ = frozenset(
    {"/", "/config", "/config/", "/theme.css", f"{_API}/theme.css", "/favicon.ico", "/manifest.json"}
    | {"/robots.txt", f"{_API}/info", f"{_API}/info/", f"{_API}/app_id", f"{_API}/startup-events"}
    | {f"{_API}/queue/data", f"{_API}/queue/status"}
)
_READ_BELOW = ("/assets/", "/static/", "/svelte/", f"{_API}/heartbeat/")
_WRITE = frozenset({f"{_API}/queue/join", f"{_API}/cancel", f"{_API}/reset"})
_BODY_KEYS = ("data", "fn_index", "session_hash", "event_id", "event_data", "trigger_id")
_UPLOAD, _PROGRESS, _FILE = f"{_API}/upload", f"{_API}/upload_progress", f"{_API}/file="
_SESSION = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
"""Gradio takes task names apart at other signs, and one such session would end every cancelling."""
_SESSIONS = 1024
"""Sessions whose owner is remembered: a few more than Gradio keeps."""
_ENVELOPE = 16_384
"""Bytes that a form may have around a file."""
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # no other site is asked, and no other site may frame the page
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors ",
}


class _Refused(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.response = JSONResponse({"detail": why}, status)  # the shape in which Gradio refuses


_NOT_FOUND = (404, "there is no such page")


class Gate:
    """An ASGI application before another one.

    ``hosts`` says under which names it answers, ``knows`` which event numbers the page has;
    ``at_end`` is called when the server ends. ``framed`` is for a page that another site shows in a frame,
    over HTTPS (Hugging Face Spaces).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Hosts,
        uploads: Uploads,
        knows: Callable[[int], bool] = lambda number: True,
        at_end: Callable[[], None] = lambda: None,
        framed: bool = False,
    ) -> None:
        self.app = app
        self.hosts, self.uploads, self.framed = hosts, uploads, framed
        self.knows, self.at_end = knows, at_end
        self.limits: PageLimits = uploads.limits
        self._owners: OrderedDict[str, str] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, refuses, or lets the request go on."""
        if scope["type"] == "lifespan":
            try:
                await self.app(scope, receive, send)
            finally:
                # here, because a signal may end the process before anything else is called
                self.uploads.close()
                self.at_end()
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        session, fresh = _session(request)
        send = self._marked(send, session if fresh else "")
        try:
            self._check_site(request)
            response = await self._answer(request, owner_of(session), fresh, send)
        except _Refused as refused:
            response = refused.response
        except ClientDisconnect:
            return
        if response is not None:
            await response(scope, receive, send)

    def _check_site(self, request: Request) -> None:
        """Raises `_Refused` for a name that is not ours, and for what another site sends."""
        names = [*request.headers.getlist("host"), *request.headers.getlist("x-forwarded-host")]
        named = [one for name in names for one in name.split(",")]
        if not request.headers.getlist("host") or not all(map(self.hosts.allows, named)):
            raise _Refused(403, "this page does not answer under that name; --allow-host NAME lets it")
        origin = request.headers.get("origin")
        if origin is not None and not any(self.hosts.same_site(origin, name) for name in named):
            raise _Refused(403, "this page takes no requests from other sites")
        visit = request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"
        if request.headers.get("sec-fetch-site") == "cross-site" and not visit and not self.framed:
            raise _Refused(403, "this page takes no requests from other sites")

    async def _answer(self, request: Request, owner: str, fresh: bool, send: Send) -> Response | None:
        path, method = request.scope["path"], request.method
        scope = _plain(request.scope)
        if method in ("GET", "HEAD"):
            if path.startswith(_FILE):
                return self._file(owner, path.removeprefix(_FILE))
            if path == _PROGRESS:
                # uploads are short; the bar of the page is closed at once
                return PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")
            if (
                ".." in path
                or "\\" in path
                or "\0" in path
                or not (path in _READ or path.startswith(_READ_BELOW))
            ):
                raise _Refused(*_NOT_FOUND)
            if path == f"{_API}/queue/data":
                self._check_owner(request.query_params.get("session_hash", ""), owner, fresh)
            elif path.startswith(f"{_API}/heartbeat/"):
                self._check_owner(path.rpartition("/")[2], owner, fresh)
            else:
                scope["query_string"] = b""  # deep links and the like are no part of the page
            await self.app(scope, request.receive, send)
            return None
        if method == "POST" and path == _UPLOAD:
            return await self._upload(request, owner)
        if method == "POST" and path in _WRITE:
            body = json.dumps(self._checked(await self._json(request), owner, fresh)).encode("ascii")
            await self.app(_sized(scope, len(body)), _replay(body, request.receive), send)
            return None
        raise _Refused(*_NOT_FOUND)

    async def _json(self, request: Request) -> dict[str, Any]:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise _Refused(415, "a request here has the content type application/json")
        raw = bytearray()
        async with self._in_time():
            async for chunk in self._bounded(request, self.limits.body_kb / 1000, "body_kb"):
                raw += chunk
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise _Refused(400, "the request is no JSON object")
        return body

    def _checked(self, body: dict[str, Any], owner: str, fresh: bool) -> dict[str, Any]:
        """The parts of ``body`` that the page uses; a file in it is an upload of this session."""
        body = {key: body[key] for key in _BODY_KEYS if key in body}
        session, number = body.get("session_hash"), body.get("fn_index")
        if not isinstance(session, str) or not isinstance(number, int | None) or isinstance(number, bool):
            raise _Refused(400, "the request needs a session_hash (text) and a fn_index (number)")
        if number is not None and not self.knows(number):
            raise _Refused(*_NOT_FOUND)
        self._check_owner(session, owner, fresh)
        if "data" in body:
            try:
                body["data"] = self._without_files(body["data"], owner)
            except RecursionError:
                raise _Refused(400, "the request is nested too deeply") from None
        return body

    def _without_files(self, value: Any, owner: str) -> Any:
        """``value`` with references to uploads in place of what the browser says of files.

        Gradio itself would open, copy or fetch what such an object names. A reference that is none is
        answered in the page, by `Uploads.read`.
        """
        if isinstance(value, dict):
            path = value.get("path")
            return {"path": reference(owner, path if isinstance(path, str) else "")}
        if isinstance(value, list):
            return [self._without_files(v, owner) for v in value]
        if isinstance(value, float) and not math.isfinite(value):
            raise _Refused(400, "the request holds a number that is not finite")
        return value

    def _check_owner(self, session: str, owner: str, fresh: bool) -> None:
        """Raises `_Refused` where another visitor began this session: its events are not for everybody.

        A program without cookies has nothing but the session's own name, which nobody can guess.
        """
        if not _SESSION.fullmatch(session):
            raise _Refused(400, "a session_hash has 1 to 64 letters, digits and hyphens")
        began = self._owners.setdefault(session, "" if fresh else owner)
        if began and began != owner:
            raise _Refused(*_NOT_FOUND)
        self._owners.move_to_end(session)
        while len(self._owners) > _SESSIONS:
            self._owners.popitem(last=False)

    async def _upload(self, request: Request, owner: str) -> Response:
        try:
            async with self._in_time():
                body = self._bounded(request, self.limits.upload_mb, "upload_mb")
                form = await MultiPartParser(request.headers, body, max_files=1, max_fields=1).parse()
        except (MultiPartException, KeyError) as error:
            raise _Refused(400, "an upload is a form with one file") from error
        try:
            file = next((f for f in form.getlist("files") if isinstance(f, UploadFile)), None)
            if file is None:
                raise _Refused(400, "an upload is a form with one file")
            name = await run_in_threadpool(self.uploads.save, owner, file.file, file.filename or "")
        except UsageError as error:
            raise _Refused(413, str(error)) from error
        finally:
            await form.close()
        loop = asyncio.get_running_loop()
        loop.call_later(60 * self.limits.upload_minutes + 1, self.uploads.expire)
        return JSONResponse([name])

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        seconds = self.limits.body_seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raised = self.limits.raised("body_seconds")
            raise _Refused(
                408, f"the request took more than {seconds:g} seconds to arrive; {raised}"
            ) from error

    async def _bounded(self, request: Request, mega: float, limit: str) -> AsyncGenerator[bytes, None]:
        """The body in pieces. Raises `_Refused` when it passes ``mega`` MB, before it is all read."""
        told = request.headers.get("content-length", "0")
        size, most = 0, mega * 1e6 + _ENVELOPE
        raised = self.limits.raised(limit)
        too_large = _Refused(413, f"the request has more than {mega:g} MB, which is the most; {raised}")
        if not told.isascii() or not told.isdigit() or int(told[:18]) > most:
            raise too_large
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise too_large
            yield chunk

    def _file(self, owner: str, name: str) -> Response:
        """An upload, for the visitor's own preview."""
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        private = {"cache-control": "private, no-store"}
        try:
            return FileResponse(self.uploads.find(reference(owner, name)), media_type=kind, headers=private)
        except InputError as error:
            raise _Refused(404, str(error)) from error

    def _marked(self, send: Send, session: str) -> Send:
        """Adds protecting headers, and the cookie of a new session, to the response."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers["content-security-policy"] += "https:" if self.framed else "'self'"
                if session:
                    strict = "SameSite=None; Secure; Partitioned" if self.framed else "SameSite=Strict"
                    headers.append("set-cookie", f"{COOKIE}={session}; Path=/; HttpOnly; {strict}")
            await send(message)

        return marked


def _session(request: Request) -> tuple[str, bool]:
    """The session of a request, and whether it is a new one."""
    held = request.cookies.get(COOKIE, "")
    return (held, False) if 20 <= len(held) <= 64 else (new_session(), True)


def _plain(scope: Scope) -> Scope:
    """``scope`` without the header with which a visitor could choose the addresses in the page."""
    kept = [(k, v) for k, v in scope["headers"] if k.lower() != b"x-gradio-server"]
    return {**scope, "headers": kept}


def _sized(scope: Scope, size: int) -> Scope:
    lengths = (b"content-length", b"transfer-encoding", b"content-encoding")
    kept = [(k, v) for k, v in scope["headers"] if k.lower() not in lengths]
    return {**scope, "headers": [*kept, (b"content-length", str(size).encode("ascii"))]}


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives ``body`` first, then what the connection says, such as that the visitor left."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
