"""The OpenAI backend against a real ``transformers serve`` process on loopback, images included."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_qwen import FAMILIES

from mmrerank.chat.open import open_chat
from mmrerank.errors import NoRoomError
from mmrerank.messages import Ask, Message, Part


@pytest.fixture(scope="module", params=FAMILIES)
def served(
    request: pytest.FixtureRequest, tiny_qwen: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """A serving process: the model's name and the base URL."""
    folder, log = tiny_qwen(request.param), tmp_path_factory.mktemp("serve") / "log.txt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("hf")
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder)]
    command += ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            for _ in range(600):
                if process.poll() is not None:
                    pytest.fail(f"transformers serve ended: {log.read_text()[-2000:]}")
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                        break
                except OSError:
                    time.sleep(0.2)
            else:
                pytest.fail(f"transformers serve did not answer: {log.read_text()[-2000:]}")
            yield str(folder), f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(timeout=20)


def plain(text: str) -> str:
    """Without what the server writes otherwise: special tokens kept, white space at the ends gone."""
    return re.sub(r"<\|\w+\|>", "", text).strip()


# starting the server takes longer than the rest of the suite
pytestmark = pytest.mark.slow


def test_a_real_server(served: tuple[str, str], qwen_chats: Callable[[str], Any], picture: Any) -> None:
    folder, url = served
    chat: Any = open_chat(f"openai:{folder}@{url}", timeout=60.0, backoff=0.05)

    def ask(text: str, *images: Any, **kw: Any) -> Ask:
        system = Message(role="system", parts=(Part(text="You judge images."),))
        parts = (Part(text=text), *(Part(image=i) for i in images), Part(text=" Well?"))
        return Ask(messages=(system, Message(role="user", parts=parts)), **kw)

    # sizes that neither side has to change, so that both see the same pixels
    side = 2 * 14 * 16 // 4 if "qwen2" in folder else 128
    pictures = [picture(side, side, seed) for seed in range(4)]
    asks = [
        ask("a dog", max_tokens=12),
        ask("a red dog", pictures[0], max_tokens=12),
        ask("cats", *pictures, max_tokens=12),
        ask("two cups", *pictures[1:3], max_tokens=12),
    ]
    replies = chat.reply(asks)
    assert [r.error for r in replies] == [None] * 4
    assert [r.usage.images for r in replies] == [0, 1, 4, 2]
    assert all(r.usage.input_tokens > 0 for r in replies)
    # the same weights and pixels, in this process: the same greedy text
    kind = "qwen2_5_vl" if "qwen2" in folder else "qwen3_vl"
    local = qwen_chats(kind).reply(asks)
    # with the images and beginnings of the first time at hand, too
    assert [r.text for r in qwen_chats(kind).reply(asks)] == [r.text for r in local]
    assert [plain(r.text) for r in replies] == [plain(r.text) for r in local]
    assert [r.usage.input_tokens for r in replies] == [r.usage.input_tokens for r in local]
    # it ignores logprobs with a 200: that must not count as a capability
    assert chat.capabilities == {"generate"}
    # it ignores response_format: a text comes back, cut off before any object begins, and that is said
    error = chat.reply([ask("x", schema={"type": "object"}, max_tokens=8)])[0].error
    assert error is None or isinstance(error, NoRoomError)
    chat.close()
    wrong: Any = open_chat(f"openai:{folder}/other@{url}", timeout=60.0, backoff=0.05, max_retries=0)
    assert "400" in str(wrong.reply(asks[:1])[0].error)
    wrong.close()
