"""Misspelt names: what they probably meant, for models, methods, stores and servers alike."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrerank import catalog, registry
from mmrerank.errors import UsageError
from mmrerank.near import meant, near

EMBEDDERS = [c.name for c in catalog.cards() if c.kind == "embedder"]


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("clip-b23", "clip-b32"), ("ClipB32", "clip-b32"), ("CLIP_B32", "clip-b32"),
        ("siglip2", "siglip2-b16"),
        ("mobileclip", "mobileclip2"), ("unime-v2", "unime-v2-2b"), ("qwen3-vl", "qwen3-vl-embedding-2b"),
    ],
)  # fmt: skip
def test_a_near_miss_of_a_short_name(word: str, first: str) -> None:
    assert near(word, EMBEDDERS)[0] == first
    with pytest.raises(UsageError, match=f"there is no embedder '{word}'. Did you mean '{first}'"):
        registry.chosen("embedder", word, {})


@pytest.mark.parametrize(
    ("kind", "word", "says"),
    [
        ("chat", "qwen2.5-vl", "'qwen2.5-vl-7b'"), ("chat", "olama:llava", "'ollama:llava'"),
        ("chat", "transformer:./x", "'transformers:./x'"), ("embedder", "openclip:A:b", "'open_clip:A:b'"),
    ],
)  # fmt: skip
def test_a_near_miss_of_a_plug_in_keeps_what_follows(kind: str, word: str, says: str) -> None:
    with pytest.raises(UsageError, match=r"Did you mean") as refused:
        registry.chosen(kind, word, {})
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "word", "name"), [("store", "Exakt", "exact"), ("strategy", "cottr", "cotrr")]
)
def test_methods_and_stores(kind: str, word: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean '{name}'"):
        registry.load(kind, word)


def test_what_is_far_gets_no_guess() -> None:
    assert meant("zzzzzz", EMBEDDERS) == ""
    assert near("", EMBEDDERS) == []
    assert near("--", EMBEDDERS) == []


NAMES = st.text("aB1-", max_size=6)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(NAMES, st.lists(NAMES, max_size=4))
def test_guesses_are_known_names(word: str, known: list[str]) -> None:
    found = near(word, known)
    assert len(found) <= 3
    assert len(set(found)) == len(found)
    assert set(found) <= set(known)


@pytest.mark.parametrize(
    "name", ["clip-b32", "clip-l14", "siglip2-b16", "mobileclip2", "unime-v2-2b", "qwen3-vl-embedding-2b"]
)
def test_short_names_stand_for_a_repository(name: str) -> None:
    card = catalog.resolve("embedder", name)
    assert card.name == name
    assert card.bytes
    assert card.memory
    assert card.speed
    assert catalog.repository("embedder", name).count("/") == 1
    assert "about" in catalog.in_words(card)


@pytest.mark.parametrize(
    ("kind", "spec", "repository"),
    [
        ("embedder", "open_clip:ViT-B-32:openai", "timm/vit_base_patch32_clip_224.openai"),
        ("embedder", "open_clip:hf-hub:org/name@abc", "org/name@abc"),
        ("embedder", "open_clip:ViT-B/32:random", ""),
        ("embedder", "unime:v2:org/name", "org/name"),
        ("embedder", "qwen3_vl:/models/x", ""),
        ("chat", "transformers:org/name", "org/name"),
        ("chat", "openai:org/name@http://127.0.0.1:1/v1", ""),
        ("chat", "ollama:org/name", ""),
        ("chat", "jina-reranker-m0", "jinaai/jina-reranker-m0"),
    ],
)
def test_which_repository_a_spec_fetches(kind: str, spec: str, repository: str) -> None:
    assert catalog.repository(kind, spec) == repository
