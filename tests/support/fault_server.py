"""A server on loopback that goes wrong in every way that servers do, by dice thrown from the request itself.

It counts how often each request came and how many connections are open, and now and then quotes the key.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import re
import threading
import time
from collections import Counter
from email.utils import formatdate
from typing import Any

MODEL = "faulty-vl"
# what happens and how often, in parts of a thousand; the rest is a good answer
FAULTS = {
    "429": 25, "429 with seconds": 25, "429 with a date": 15, "500": 25, "503": 25, "408": 5,
    "reset": 25, "hang": 2, "drip": 10, "cut": 15, "truncated": 20, "html": 20, "wrong model": 10,
    "no logprobs": 20, "prose": 30, "duplicates": 30, "invented": 30, "huge": 1, "400": 10, "404": 5,
    "401": 3, "quoted key": 10, "empty": 10, "thoughts": 10, "null": 5, "deep": 2,
    "brotli": 4, "gzip bomb": 4, "digits": 6, "braces": 2, "surrogates": 6, "forged": 6,
}  # fmt: skip
assert sum(FAULTS.values()) < 600


class FaultServer:
    """Serves ``/v1/chat/completions`` until `close`. ``seed`` changes every die."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.requests: Counter[str] = Counter()
        self.about: dict[str, int] = {}
        self.dealt: Counter[str] = Counter()
        self.open = self.most_open = 0
        self.sound = True
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20), self._loop
        ).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        key = next((ln for ln in head.split("\r\n") if ln.lower().startswith("authorization")), "")
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        name = hashlib.sha256(body).hexdigest()
        self.requests[name] += 1
        found = re.search(rb"search number (\d+)", body)
        self.about[name] = int(found[1]) if found else -1
        fault = "" if self.sound else self._die(f"{self.seed} {name} {self.requests[name]}")
        self.dealt[fault or "good"] += 1
        return await self._deal(fault, json.loads(body), key, reader, writer)

    def _die(self, text: str) -> str:
        number = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 1000
        for fault, parts in FAULTS.items():
            number -= parts
            if number < 0:
                return fault
        return ""

    async def _deal(
        self,
        fault: str,
        request: dict[str, Any],
        key: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if fault == "reset":
            writer.transport.abort()
            return False
        if fault == "hang":
            await reader.read(1)  # until the client gives up
            return False
        status, headers = 200, {"content-type": "application/json"}
        answer: Any = good(request)
        if fault[:3].isdigit():
            status = int(fault[:3])
            answer = {"error": {"message": f"trouble; you sent {key}"}}
            if fault.endswith("seconds"):
                headers["retry-after"] = "0"
            elif fault.endswith("date"):
                headers["date"] = formatdate(time.time(), usegmt=True)
                headers["retry-after"] = formatdate(time.time() - 1, usegmt=True)
        headers |= {"brotli": {"content-encoding": "br"}, "gzip bomb": {"content-encoding": "gzip"}}.get(
            fault, {}
        )
        answer = reply(fault, request, key) or answer
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        if fault == "truncated":
            data = data[: len(data) * 2 // 3]
        length = len(data) + (100 if fault == "cut" else 0)
        said = "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{said}content-length: {length}\r\n\r\n".encode())
        if fault == "drip":
            for start in range(0, len(data), 64):
                writer.write(data[start : start + 64])
                await writer.drain()
                await asyncio.sleep(0.005)
        else:
            writer.write(data)
        await writer.drain()
        return fault != "cut"


def completion(content: Any, **extra: Any) -> dict[str, Any]:
    """A response in the protocol's shape."""
    message = {"role": "assistant", "content": content, **extra.pop("message", {})}
    choice = {"index": 0, "finish_reason": "stop", "message": message, **extra}
    usage = {"prompt_tokens": 50, "completion_tokens": 9}
    return {"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage}


def labels(request: dict[str, Any]) -> list[str]:
    """The labels that a schema asks for, wherever they stand."""
    schema = request.get("response_format", {}).get("json_schema", {}).get("schema", {})
    fields = schema.get("properties", {})
    found = fields.get("scores", {}).get("properties") or fields
    return [n for n in found if n not in ("reason", "components", "images")]


def marks(request: dict[str, Any]) -> dict[str, int]:
    """How good each candidate is, by its label: "picture 3 of 17" is better than "picture 2 of 17"."""
    found = re.findall(r"(?:Image (\w{1,4}):\s*)?[\"']picture (\d+) of", _words(request))
    return {label or "yes": int(number) for label, number in found}


def _words(request: dict[str, Any]) -> str:
    parts = [m["content"] for m in request["messages"]]
    return "\n".join(p if isinstance(p, str) else "".join(q.get("text", "") for q in p) for p in parts)


def good(request: dict[str, Any]) -> dict[str, Any]:
    """An answer as a good model gives it, which looks: in the schema's form, or with log-probabilities."""
    known = marks(request)
    if request.get("logprobs"):
        answers = ("no", "yes") if "ice hot" in _words(request) else ("yes", "no")
        tokens = {n: -8.0 - n for n in range(2)}
        # of letters the best holds half; a "yes" is worth more the better its picture is
        most = 6.5 if "yes" in known else max(known.values(), default=0) + 0.7
        values = {str(n): v for n, v in tokens.items()} | {label: m - most for label, m in known.items()}
        values |= {"no": -3.0} if "yes" in known else dict(zip(answers, (-0.5, -1.5), strict=True))
        top = [{"token": t, "logprob": v} for t, v in sorted(values.items(), key=lambda row: -row[1])]
        return completion(top[0]["token"], logprobs={"content": [{**top[0], "top_logprobs": top}]})
    schema = request.get("response_format", {}).get("json_schema", {}).get("schema", {})
    return completion(json.dumps(filled(schema, known) if schema else {"reason": "told in words"}))


def filled(schema: dict[str, Any], known: dict[str, int], mark: int = 0) -> Any:
    """A value that follows ``schema``: what stands under a label is as high as its candidate is good."""
    if "enum" in schema:
        best = max(known, key=lambda label: known[label], default=None)
        return best if best in schema["enum"] else schema["enum"][mark if mark in schema["enum"] else 0]
    kind = schema.get("type")
    if kind == "object":
        return {k: filled(v, known, known.get(k, mark)) for k, v in schema.get("properties", {}).items()}
    if kind == "array":
        return [filled(schema["items"], known)]
    return schema.get("minimum", 1) + mark if kind == "integer" else "a boat"


DIGITS = "9" * 400
BROTLI = bytes.fromhex("cbffff3f0024e2b1ff") * 180
"""1.6 KB that are said to be packed; no client should find out what they hold."""
BOMB = gzip.compress(b" " * (32 * 2**20))


def _digits(request: dict[str, Any], names: list[str]) -> bytes:
    """Numbers of 400 digits, where log-probabilities or scores are asked for."""
    if request.get("logprobs"):
        top = [{"token": t, "logprob": "N"} for t in ("yes", "no", *names)]
        answer = completion("yes", logprobs={"content": [{**top[0], "top_logprobs": top}]})
        return json.dumps(answer).replace('"N"', f"-{DIGITS}").encode()
    scores = ",".join(f'"{n}": {DIGITS}' for n in names)
    return json.dumps(completion(f'{{"scores": {{{scores}}}}}')).encode()


def reply(fault: str, request: dict[str, Any], key: str) -> Any:
    """The answer of a fault that comes as a 200; None for the others."""
    names = labels(request) or ["A"]
    return {
        "html": b"<html><body>Please log in</body></html>",
        "wrong model": {**completion("{}"), "model": "some-other-model"},
        "no logprobs": completion("yes"),
        "prose": completion("Sure! The best image is clearly the first one."),
        "duplicates": completion(
            "{" + ",".join(f'"{n}": {i}, "{n}": {i + 1}' for i, n in enumerate(names)) + "}"
        ),
        "invented": completion(json.dumps({"scores": {f"Z{n}": 5 for n in range(9)}})),
        "huge": completion("x" * (10 * 2**20)) if fault == "huge" else None,
        "brotli": BROTLI,
        "gzip bomb": BOMB,
        "digits": _digits(request, names),
        "braces": completion("{" * 2**20) if fault == "braces" else None,
        "surrogates": completion("\ud800{\udfff" + "\x00\u202e"),
        "forged": completion('Image B: best\nc1 (subject): met\n{"scores": {"B"'),
        "quoted key": completion(f"I was called with {key}"),
        "empty": completion(""),
        "thoughts": completion(None, message={"reasoning_content": "hmm"}),
        "null": {"choices": None},
        "deep": b"[" * 200_000,
    }.get(fault)
