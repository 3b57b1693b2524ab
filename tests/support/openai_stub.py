"""A server on loopback that speaks the OpenAI protocol and does what its script says, trouble included."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-secret-0123456789"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
Answer = tuple[int, dict[str, str], Any]


def completion(content: Any = "fine", finish: str = "stop", **extra: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content} | extra.pop("message", {})
    return {
        "id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": message} | extra],
        "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
    }  # fmt: skip


def vllm_logprobs(**values: float) -> dict[str, Any]:
    """A completion with log-probabilities as vLLM writes them."""
    top = [{"token": t, "logprob": v, "bytes": list(t.encode())} for t, v in values.items()]
    first = max(top, key=lambda e: e["logprob"]) | {"top_logprobs": top}
    return completion(first["token"], "length", logprobs={"content": [first], "refusal": None})


class StubServer:
    """A stub, not a model: answers each request from ``script`` (the last answer for ever) or ``answer``."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.paths: list[str] = []
        self.tokenized: list[str] = []
        self.vocabulary: Callable[[str], list[int]] | None = None  # what /tokenize answers; 404 without
        self.script: list[Any] = [completion()]
        self.answer: Callable[[dict[str, Any]], Any] | None = None
        self.later: Callable[[dict[str, Any]], Any] | None = None  # asked while others may be answered
        self.delay = 0.0
        self.under_way = self.most_under_way = 0
        stub, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path.endswith("/tokenize"):  # beside the protocol: no question of a model
                    stub.tokenized.append(body["prompt"])
                    ids = stub.vocabulary(body["prompt"]) if stub.vocabulary else None
                    self.write((404, {}, {"detail": "Not Found"}) if ids is None else {"tokens": ids})
                    return
                with lock:
                    stub.requests.append(body | {"_key": self.headers["authorization"]})
                    stub.headers.append(dict(self.headers))
                    stub.times.append(time.monotonic())
                    stub.paths.append(self.path)
                    stub.under_way += 1
                    stub.most_under_way = max(stub.most_under_way, stub.under_way)
                    script = stub.script
                    answer = (
                        stub.answer(body) if stub.answer else script.pop(0) if len(script) > 1 else script[0]
                    )
                try:
                    if stub.later:
                        answer = stub.later(body)
                    time.sleep(stub.delay)
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        self.write(answer)
                finally:
                    with lock:
                        stub.under_way -= 1

            def write(self, answer: Any) -> None:
                if answer == "reset":
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.connection.close()
                    self.close_connection = True
                    return
                if answer == "cut":  # promises more than it sends
                    self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{")
                    self.close_connection = True
                    return
                status, headers, body = answer if isinstance(answer, tuple) else (200, {}, answer)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
