"""A server stub with vLLM's documented shapes over tiny real weights: a model is behind the wire.

It obeys ``logprobs``, ``top_logprobs`` (20 at most), ``logprob_token_ids`` (128 at most; an older one passes
over it), ``return_tokens_as_token_ids``, ``structured_outputs.choice`` (whose mask shows in log-probabilities
only as under ``--logprobs-mode processed_logprobs``), ``response_format``, ``stream`` and ``/tokenize``, and
tells of a prefix cache that it does not have.
"""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mmrerank.messages import Ask, Message, Part
from mmrerank.types import Image

ROOMY = 4096
"""Visual tokens an image may have: the client has sized it already."""


def ask_of(messages: list[dict[str, Any]], *, schema: Any = None, max_tokens: int = 16) -> Ask:
    """The question that messages of the protocol hold."""
    return Ask(
        messages=tuple(Message(role=m["role"], parts=tuple(_parts(m["content"]))) for m in messages),
        schema=schema,
        max_tokens=max_tokens,
        image_tokens=ROOMY,
    )


def _parts(content: Any) -> list[Part]:
    if isinstance(content, str):
        return [Part(text=content)]
    return [
        Part(text=c["text"])
        if c["type"] == "text"
        else Part(image=Image(data=base64.b64decode(c["image_url"]["url"].partition(",")[2])))
        for c in content
    ]


def next_token(chat: Any, ask: Ask, allowed: list[int] | None = None) -> Any:
    """Log-probabilities (vocabulary,) of an answer's first token, under a mask if some are ``allowed``."""
    import torch

    with chat.qwen.lock, torch.inference_mode():
        prompt = chat.qwen.encode(ask.messages, image_tokens=ask.image_tokens)
        logits = chat.qwen.forward(chat.qwen.collate([prompt])).cpu()[0]
    if allowed is not None:
        masked = torch.full_like(logits, float("-inf"))
        masked[allowed] = logits[allowed]
        logits = masked
    return torch.log_softmax(logits, -1)


class TinyServer:
    """Serves ``chat`` (of `mmrerank.chat.transformers`) as ``model`` on loopback until `close`."""

    def __init__(
        self, chat: Any, model: str = "tiny-vl", most_images: int = 20, *, old: bool = False, raw: bool = True
    ) -> None:
        self.old, self.raw = old, raw
        self.requests: list[dict[str, Any]] = []
        self.seen: set[str] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                listed = {"object": "list", "data": [{"id": model, "object": "model"}]}
                self.send(200, json.dumps(listed).encode())

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.path == "/tokenize":
                    found = chat.qwen.tokenizer(
                        request["prompt"], add_special_tokens=request.get("add_special_tokens", True)
                    )["input_ids"]
                    said = {"count": len(found), "max_model_len": 32768, "tokens": found}
                    self.send(404 if server.old else 200, json.dumps(said).encode())
                    return
                server.requests.append(request)
                images = json.dumps(request["messages"]).count('"image_url": {')
                if images > most_images:
                    said = f"At most {most_images} image(s) may be provided in one prompt."
                    error = {"object": "error", "message": said, "code": 400}
                    self.send(400, json.dumps({"error": error}).encode())
                    return
                whole = server.answer(chat, model, request)
                if request.get("stream"):
                    self.send(200, events(whole), "text/event-stream")
                else:
                    self.send(200, json.dumps(whole).encode())

            def send(self, status: int, data: bytes, kind: str = "application/json") -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.host = f"127.0.0.1:{self.http.server_port}"
        self.url = f"http://{self.host}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def answer(self, chat: Any, model: str, request: dict[str, Any]) -> dict[str, Any]:
        form = request.get("response_format", {}).get("json_schema", {})
        limit = request.get("max_tokens") or request.get("max_completion_tokens")
        ask = ask_of(request["messages"], schema=form.get("schema"), max_tokens=limit)
        tokenizer = chat.qwen.tokenizer
        prompt = chat.qwen.encode(ask.messages, image_tokens=ROOMY).length
        choice: dict[str, Any] = {"index": 0, "stop_reason": None}
        if request.get("logprobs"):
            assert request["top_logprobs"] <= 20
            wanted = request.get("structured_outputs", {}).get("choice")
            allowed = wanted and [tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in wanted]
            values = next_token(chat, ask, allowed)
            first = int(values.argmax())
            if self.raw and allowed:
                values = next_token(chat, ask)
            ids = [] if self.old else request.get("logprob_token_ids") or []
            assert len(ids) <= 128
            shown = [first, *ids] if ids else values.topk(request["top_logprobs"]).indices.tolist()
            named = request.get("return_tokens_as_token_ids")
            top = []
            for i in dict.fromkeys(shown):
                token = f"token_id:{i}" if named else tokenizer.decode([i])
                # vLLM writes minus infinity as -9999
                value = max(float(values[i]), -9999.0)
                top.append({"token": token, "logprob": value, "bytes": list(token.encode())})
            text, finish, count = tokenizer.decode([first]), "length", 1
            choice["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
        else:
            reply = chat.reply([ask])[0]
            assert reply.error is None, reply.error
            text, finish, count = reply.text, reply.finish, reply.usage.output_tokens
        message = {"role": "assistant", "content": text, "reasoning_content": None, "tool_calls": []}
        start = json.dumps(request["messages"])[:4000]
        told = {"cached_tokens": prompt // 16 * 16 if start in self.seen else 0}
        self.seen.add(start)
        return {
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
            "choices": [{**choice, "message": message, "finish_reason": finish}],
            "usage": {
                "prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count,
                "prompt_tokens_details": told,
            },
        }  # fmt: skip


def events(whole: dict[str, Any]) -> bytes:
    """A response as the pieces in which it is streamed."""
    head = {k: whole[k] for k in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    choice = whole["choices"][0]
    text = choice["message"]["content"]
    pieces: list[dict[str, Any]] = [
        {"delta": {"role": "assistant", "content": ""}, "finish_reason": None},
        *({"delta": {"content": c}, "finish_reason": None} for c in text),
        {"delta": {"content": ""}, "finish_reason": choice["finish_reason"]},
    ]
    lines = [json.dumps({**head, "choices": [{"index": 0, **p}]}) for p in pieces]
    lines.append(json.dumps({**head, "choices": [], "usage": whole["usage"]}))
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()
