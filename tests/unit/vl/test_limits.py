"""What a local model does at its limits: strips, tiny images, no memory, no sense, numbers of its own."""

from __future__ import annotations

import gc
import io
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from tiny_qwen import EACH, FAMILIES

from mmrerank.chat.transformers import open as open_chat
from mmrerank.errors import ModelError
from mmrerank.messages import Ask, Message, Part
from mmrerank.types import Image
from mmrerank.vl.load import load


def ask(*parts: str | Image, **kw: Any) -> Ask:
    made = tuple(Part(text=p) if isinstance(p, str) else Part(image=p) for p in parts)
    return Ask(messages=(Message(role="user", parts=made),), **kw)


@pytest.fixture(params=EACH)
def folder(request: pytest.FixtureRequest, tiny_qwen: Callable[[str], Path]) -> Path:
    return tiny_qwen(request.param)


@pytest.mark.slow
@given(
    wide=st.integers(1, 3000),
    high=st.integers(1, 3000),
    tokens=st.sampled_from([1, 4, 16, 40, 64, 96, 100, 128, 180, 256]),
    least=st.sampled_from([3136, 65536]),
)
@settings(max_examples=150, deadline=None)
def test_an_image_takes_at_least_one_token_and_no_more_than_allowed(
    qwen_chats: Callable[[str], Any], wide: int, high: int, tokens: int, least: int
) -> None:
    shown = Pillow.new("RGB", (wide, high))
    for kind in FAMILIES:
        prompts = qwen_chats(kind).qwen.prompts
        usual, prompts.min_pixels = prompts.min_pixels, least
        try:
            picture = prompts.prepare(shown, tokens)
        finally:
            prompts.min_pixels = usual
        visual = int(picture.grid.prod()) // prompts.merged
        assert 1 <= visual <= tokens
        assert picture.pixels is not None
        assert len(picture.pixels) == visual * prompts.merged


def test_a_long_strip_is_shown_and_spoils_nothing(
    qwen_chats: Callable[[str], Any], picture: Callable[..., Image]
) -> None:
    for kind in FAMILIES:
        asks = [
            ask(picture(w, h), "good?", choices=("A", "B"), image_tokens=64)
            for w, h in ((90, 80), (2304, 20), (20, 2304))
        ]
        assert [r.error for r in qwen_chats(kind).reply(asks)] == [None] * 3


def test_features_on_disk_are_those_of_the_same_preparation(
    folder: Path, tmp_path: Path, picture: Callable[..., Image]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    question = [ask(picture(), "good?", choices=("A", "B"))]
    kept = tmp_path / "features"
    open_chat(str(model), feature_folder=kept).reply(question)
    file = next(
        f for f in (model / "preprocessor_config.json", model / "processor_config.json") if f.exists()
    )
    said = json.loads(file.read_text("utf-8"))
    said.get("image_processor", said)["image_mean"] = [0.1, 0.1, 0.1]
    file.write_text(json.dumps(said), "utf-8")
    fresh = open_chat(str(model)).reply(question)[0].logprobs
    found = open_chat(str(model), feature_folder=kept).reply(question)[0].logprobs
    assert found["A"] == pytest.approx(fresh["A"], abs=1e-5)


def test_what_did_not_fit_is_gone_before_it_is_tried_again(
    qwen_chats: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = qwen_chats("qwen2_5_vl")
    large: list[weakref.ref[Any]] = []
    alive: list[bool] = []
    plain = chat.qwen.forward

    def forward(batch: Any, cache: Any = None) -> Any:
        if len(batch.ids) > 1:
            activation = torch.zeros(8)
            large.append(weakref.ref(activation))
            raise RuntimeError("out of memory")
        gc.collect()
        alive.append(large[0]() is not None)
        return plain(batch, cache)

    monkeypatch.setattr(chat.qwen, "forward", forward)
    asks = [ask(f"is {n} good?", choices=("A", "B")) for n in range(3)]
    assert all(r.error is None for r in chat.reply(asks))
    assert alive == [False] * 3


def test_numbers_that_are_none_are_an_error_and_no_order(folder: Path) -> None:
    chat: Any = open_chat(str(folder))
    norms = [p for n, p in chat.qwen.model.named_parameters() if n.endswith("norm.weight")]
    with torch.no_grad():
        norms[-1][0] = float("nan")
    schema = {"type": "object", "properties": {"a": {"enum": ["A", "B"]}}, "required": ["a"]}
    asks = [ask("x", schema=schema), ask("x", max_tokens=5), ask("x", choices=("A", "B"))]
    for reply in chat.reply(asks):
        assert "overflowed" in str(reply.error)
        assert not reply.text
        assert not reply.logprobs


def test_images_that_wait_are_counted_whether_looked_at_or_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def png(n: int) -> Image:
        file = io.BytesIO()
        noise = np.random.default_rng(n).integers(0, 255, (60, 60, 3), dtype=np.uint8)
        Pillow.fromarray(noise).save(file, "png")
        return Image(data=file.getvalue())

    chat: Any = open_chat(str(folder))
    asks = [ask(png(n), "good?", choices=("A", "B")) for n in range(6)]
    before = chat.reply(asks)
    one = chat.qwen.prompts.picture(asks[0].messages[0].parts[0].image, asks[0].image_tokens).size
    monkeypatch.setattr("mmrerank.chat.transformers.PIXEL_BYTES", int(1.5 * one))
    waiting: list[int] = []
    plain = chat._answer_all

    def answered(jobs: Any, *rest: Any) -> Any:
        waiting.append(len(jobs))
        return plain(jobs, *rest)

    monkeypatch.setattr(chat, "_answer_all", answered)
    assert [r.logprobs for r in chat.reply(asks)] == [pytest.approx(r.logprobs, abs=1e-5) for r in before]
    assert max(waiting) == 2


def test_a_device_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="cannot be put on cuda:99"):
        load(str(folder), device="cuda:99")
    with pytest.raises(ModelError, match=r"^there is no device 'gpu'; use cpu, cuda, cuda:N or auto"):
        load(str(folder), device="gpu")


def test_quantised_weights_keep_their_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

    moved: list[Any] = []

    def to(self: Any, **where: Any) -> Any:
        moved.append(where)
        return self

    for kind in (Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration):
        monkeypatch.setattr(kind, "is_quantized", True, raising=False)
        monkeypatch.setattr(kind, "to", to)
    load(str(folder), device="cpu")
    assert all("dtype" not in kw for kw in moved)
    with pytest.raises(ModelError, match="keeps its own numbers"):
        load(str(folder), device="cpu", dtype="bfloat16")
