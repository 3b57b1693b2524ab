"""The text tower beside an index: the model's own tokens and vectors, no torch, and nothing of another."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from command import tiny_clip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_world import build, paint

from mmrerank.embed import _text_tower_check, _text_tower_make, text_tower
from mmrerank.embed._text_tokens import TextTokens
from mmrerank.embed.open import open_embedder
from mmrerank.errors import MismatchError, ModelError
from mmrerank.index import manifest
from mmrerank.index.index import ImageIndex
from mmrerank.kept_tower import kept_tower
from mmrerank.ports import Embedder
from mmrerank.query_embedder import words_embedder
from mmrerank.search import ImageSearch
from mmrerank.types import Image, Query

QUERIES = [
    Query(text="A red BOAT, näher"),
    Query(text="not at night", turns=("a boat", "red")),
    Query(text="a dog", exclude=("people", " ")),
    Query(text="word " * 50),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def spec(folder: Path) -> str:
    return f"open_clip:local-dir:{folder}"


@pytest.fixture(scope="module")
def model(spec: str) -> Any:
    return open_embedder(spec)


@pytest.fixture(scope="module")
def files(model: Any) -> dict[str, bytes]:
    return dict(model.text_tower())


def forbidden() -> Embedder:
    raise AssertionError("the model was opened")


def opened(files: dict[str, bytes], whole: Callable[[], Embedder] = forbidden) -> text_tower.TextTower:
    facts = text_tower.facts_of(files["tower.json"])
    return text_tower.TextTower(files, facts, spec="tiny", domain=facts.domain, whole=whole)


@pytest.fixture(scope="module")
def tower(files: dict[str, bytes]) -> text_tower.TextTower:
    return opened(files)


@pytest.fixture
def index(tmp_path: Path, model: Any, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of four pictures with its tower, which is made once for all tests."""
    monkeypatch.setattr(type(model), "text_tower", lambda _: files)
    paint(tmp_path / "pictures", [f"{n}.png" for n in range(4)])
    build(tmp_path / "index", tmp_path / "pictures", model)
    return tmp_path / "index"


def words(index: Path, named: str = "") -> Embedder:
    return words_embedder(manifest.read(index), index, named)


# ---------------------------------------------------------------- the same as the model


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=60), min_size=1, max_size=4))
def test_tokens_are_those_of_open_clip(model: Any, tower: text_tower.TextTower, texts: list[str]) -> None:
    theirs = model._tokenizer(texts)
    assert tower._tokens(texts).tolist() == theirs.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_every_cleaning_is_open_clips(model: Any, clean: str) -> None:
    theirs = type(model._tokenizer)(context_length=32, clean=clean)
    rules, vocabulary = _text_tower_make._written(theirs)
    ours = TextTokens(rules, vocabulary)
    assert (ours(_text_tower_make.TEXTS) == theirs(list(_text_tower_make.TEXTS)).numpy()).all()


def test_vectors_are_the_models(model: Any, tower: text_tower.TextTower) -> None:
    assert tower.embed_queries(QUERIES) == pytest.approx(model.embed_queries(QUERIES), abs=1e-5)
    assert tower.embed_queries([]).shape == (0, 16)
    many = [Query(text=f"{t}.") for t in _text_tower_make.TEXTS if "\0" not in t]
    assert tower.embed_queries(many) == pytest.approx(model.embed_queries(many), abs=1e-5)
    assert (tower.fingerprint, tower.dim, tower.domain) == (model.fingerprint, 16, "")


@pytest.mark.parametrize("text", ["short", "word " * 31, "word " * 30, "!" * 200, "寺" * 40], ids=range(5))
def test_long_texts_are_counted_alike(model: Any, tower: text_tower.TextTower, text: str) -> None:
    assert tower.overlong(text) == model.overlong(text)


def test_a_query_with_an_image_opens_the_model_once(model: Any, files: dict[str, bytes]) -> None:
    calls = []

    def whole() -> Embedder:
        calls.append(1)
        return model  # type: ignore[no-any-return]

    tower = opened(files, whole)
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), "red").save(file, "png")
    picture = Image(data=file.getvalue())
    asked = [Query(text="a boat", images=(picture,)), Query(text="a boat")]
    for _ in range(2):
        assert tower.embed_queries(asked) == pytest.approx(model.embed_queries(asked), abs=1e-6)
    assert calls == [1]


@pytest.mark.slow
def test_a_tower_of_half_precision_weights_agrees(spec: str) -> None:
    half = open_embedder(spec, precision="bfloat16")
    tower = opened(dict(half.text_tower()))
    made, wanted = tower.embed_queries(QUERIES), half.embed_queries(QUERIES)
    assert (made * wanted).sum(axis=1).min() > _text_tower_make.TOLERANCE["bfloat16"][0]


# ---------------------------------------------------------------- in an index


def test_a_search_for_words_loads_no_torch(index: Path, spec: str) -> None:
    told = ImageIndex.open(index).info()
    assert told["text_tower"] == sum(f.stat().st_size for f in (index / "text").iterdir())
    code = f"""
import sys
from mmrerank import ImageSearch
search = ImageSearch.open({str(index)!r}, embedder={spec!r})
search.index._store = "exact"
assert len(search.search("a red boat", exclude="people")) == 4
loaded = {{"torch", "torchvision", "open_clip", "transformers", "faiss"}} & sys.modules.keys()
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_it_answers_as_the_model_does(index: Path, spec: str, model: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = ImageSearch.open(index, embedder=spec)
        theirs = ImageSearch.open(index, embedder=model)
        for query in QUERIES:
            found, wanted = ours.search(query), theirs.search(query)
            assert [h.id for h in found] == [h.id for h in wanted]
            assert found.warnings == wanted.warnings
    assert isinstance(ours.embedder, text_tower.TextTower)


def test_an_update_keeps_it_and_no_text_tower_removes_it(
    index: Path, model: Any, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = index.parent / "pictures"
    before = manifest.read(index).files
    assert [f.name for f in before] == [f"text/{n}" for n in files]
    monkeypatch.setattr(type(model), "text_tower", lambda _: pytest.fail("it was made again"))
    paint(pictures, ["new.png"], start=9)
    build(index, pictures, model)
    assert manifest.read(index).files == before
    build(index, pictures, model, text_tower=False)
    assert manifest.read(index).files == ()
    assert not (index / "text").exists()
    assert ImageIndex.open(index).info()["text_tower"] == 0


def test_one_that_does_not_agree_is_left_out_and_reported_once(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_text_tower_make, "TOLERANCE", {"float32": (1.1, 0.0)})
    paint(tmp_path / "pictures", ["a.png"])
    report = build(tmp_path / "index", tmp_path / "pictures", model)
    (told,) = [r for r in report.remarks if "text tower" in r]
    assert "it does not agree with the model" in told
    assert not (tmp_path / "index/text").exists()
    assert manifest.read(tmp_path / "index").files == ()


@pytest.mark.parametrize("name", ["tower.onnx", "tokenizer.json", "tower.json"])
def test_a_flipped_bit_is_found_and_never_used(index: Path, spec: str, name: str) -> None:
    path = index / "text" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with ImageIndex.open(index) as whole:
        (told,) = whole.verify()
    assert name in told
    with pytest.warns(UserWarning, match="does not have the hash"):
        assert not isinstance(words(index, spec), text_tower.TextTower)


def test_a_link_in_its_place_is_refused(index: Path) -> None:
    path = index / "text/tower.json"
    path.rename(index.parent / "elsewhere.json")
    path.symlink_to(index.parent / "elsewhere.json")
    with pytest.warns(UserWarning, match="is a link"):
        assert kept_tower(manifest.read(index), index, manifest.read(index).embedder, forbidden) is None


# ---------------------------------------------------------------- whose model it is


def test_a_folder_that_only_the_index_names_is_not_opened(index: Path) -> None:
    with pytest.raises(ModelError, match="Only the index says so"):
        words(index)


def test_other_weights_in_the_folder_are_noticed(index: Path, spec: str, tmp_path: Path) -> None:
    facts = manifest.read(index)
    other = tiny_clip(tmp_path)
    (other / "config.json").write_text("{}")
    moved = dataclasses.replace(facts, embedder=f"open_clip:local-dir:{other}")
    assert kept_tower(moved, index, moved.embedder, forbidden) is None  # another file beside them
    (other / "config.json").unlink()
    # the same bytes, written at another time
    assert kept_tower(moved, index, moved.embedder, forbidden) is not None
    weights = other / "open_clip_model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert kept_tower(moved, index, moved.embedder, forbidden) is None
    with pytest.raises(MismatchError):
        words_embedder(moved, index, moved.embedder)


def test_another_model_or_an_option_opens_the_model(index: Path, spec: str) -> None:
    facts = manifest.read(index)
    for named in ("open_clip:ViT-B-32:random", "qwen3_vl:org/name", "open_clip:ViT-B-32:openai"):
        assert kept_tower(facts, index, named, forbidden) is None
    assert not isinstance(words_embedder(facts, index, spec, precision="float32"), text_tower.TextTower)
    assert isinstance(words_embedder(facts, index, spec, device="cpu"), text_tower.TextTower)


# ---------------------------------------------------------------- a hostile tower


def field(number: int, value: bytes | int) -> bytes:
    """A field of a protobuf message; numbers below 128."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    size = len(value)
    assert size < 1 << 14
    return bytes([number << 3 | 2, size & 127 | 128, size >> 7]) + value


def graph(*nodes: bytes, tensor: bytes = b"") -> bytes:
    return field(7, b"".join(field(1, n) for n in nodes) + (field(5, tensor) if tensor else b""))


def test_only_plain_operations_on_its_own_numbers_are_let_in() -> None:
    fine = field(4, b"MatMul")
    _text_tower_check.check(graph(fine, tensor=field(8, b"weights") + field(9, b"\0" * 8)))
    domain = field(8, field(1, b"com.microsoft"))
    refused = {
        "operation b'Loop'": graph(field(4, b"Loop")),
        "operation b''": graph(b""),
        "operation of b'evil'": graph(fine + field(7, b"evil")),
        "operations of b'com.microsoft'": graph(fine) + domain,
        "tensor has the field 13": graph(fine, tensor=field(13, field(1, b"location"))),
        "tensor has the field 14": graph(fine, tensor=field(14, 1)),
        "attribute has the field 6": graph(fine + field(5, field(6, b""))),
        "model has the field 25": field(7, b"") + b"\xca\x01\x00",
        "no ASCII": graph(fine + field(1, b"\xff")),
        "0 graphs": b"",
        "ends early": graph(fine)[:-1],
    }
    for why, data in refused.items():
        with pytest.raises(ValueError, match=why):
            _text_tower_check.check(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"it |a "):
        _text_tower_check.check(data)


def test_the_runtime_has_another_chance_to_refuse(files: dict[str, bytes]) -> None:
    with pytest.raises(ModelError, match="cannot be loaded"):
        text_tower.session(graph(field(4, b"MatMul")))
    cut = files["tower.onnx"][:-100]
    with pytest.raises(ModelError, match="refused: it ends early"):
        opened({**files, "tower.onnx": cut})


def wrong_facts() -> Iterator[tuple[str, Any]]:
    yield "format", 2
    yield "dim", "16"
    yield "weights", [["a", 1, 2]]
    yield "weights", [{"name": [], "bytes": 1, "changed": 1, "sha256": ""}]
    yield "rules", None
    yield "rules", {"kind": "clip", "clean": "lower", "context": True}
    yield "rules", {"kind": "clip", "clean": "lower", "context": 1 << 40}
    yield "more", 1


@pytest.mark.parametrize(("key", "value"), list(wrong_facts()))
def test_facts_that_are_none_are_refused(files: dict[str, bytes], key: str, value: Any) -> None:
    body = {**json.loads(files["tower.json"]), key: value}
    with pytest.raises(ModelError, match=r"tower\.json cannot be read"):
        text_tower.facts_of(json.dumps(body).encode())


def test_a_tower_that_gives_something_else_is_an_error(files: dict[str, bytes]) -> None:
    body = json.loads(files["tower.json"]) | {"dim": 17}
    tower = opened({**files, "tower.json": json.dumps(body).encode()})
    with pytest.raises(ModelError, match="not \\(1, 17\\) numbers"):
        tower.embed_queries([Query(text="a boat")])
    assert np.isfinite(opened(files).embed_queries([Query(text="a boat")])).all()
