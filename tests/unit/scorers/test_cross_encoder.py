"""Cross-encoders of Sentence Transformers: pairs, activations, failures; with the package, its own scores."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mmrerank.errors import MissingExtraError, ModelError
from mmrerank.scorers import cross_encoder
from mmrerank.types import Candidate, Image, Query


class Model:
    """Stands for a CrossEncoder: a pair's score is the length of its document; refuses what is marked bad."""

    dtype = "float32"

    def __init__(self, activation: Any) -> None:
        self.activation_fn = activation
        self.calls: list[tuple[list[Any], dict[str, Any]]] = []

    def predict(self, pairs: list[Any], **given: Any) -> Any:
        import torch

        self.calls.append((pairs, given))
        if any(d == "bad" for _, d in pairs):
            raise RuntimeError("out of memory")
        raw = torch.tensor([float(len(d)) if isinstance(d, str) else 2.0 for _, d in pairs])
        return given.get("activation_fn", self.activation_fn)(raw)


def scorer(activation: str) -> tuple[Model, cross_encoder.CrossEncoderScorer]:
    import torch

    model = Model(getattr(torch.nn, activation)())
    made = cross_encoder.CrossEncoderScorer(
        model, spec="cross_encoder:x", batch_size=2, image_tokens=0, version="6.2.0"
    )
    return model, made


def test_a_sigmoid_is_taken_apart_and_logits_are_called_so() -> None:
    model, one = scorer("Sigmoid")
    texts = [Candidate(id=str(n), text="x" * n) for n in (3, 40)]
    found = one.score(Query(text="q"), texts, "find it")
    assert found == pytest.approx([1 / (1 + math.exp(-3)), 1 - math.exp(-40)], abs=1e-15)
    assert not one.logits
    assert model.calls[0][1]["prompt"] == "find it"
    _, other = scorer("Identity")
    assert other.logits
    assert list(other.score(Query(text="q"), texts)) == [3.0, 40.0]


def test_pairs_hold_words_pictures_or_both(picture: Callable[..., Image]) -> None:
    model, one = scorer("Identity")
    image = picture(32, 32)
    query = Query(text="bluer", images=(image,))
    given = [Candidate(id="1", image=image), Candidate(id="2", image=image, text="a boat"),
             Candidate(id="3", image=Image(data=b"none"))]  # fmt: skip
    marks = one.marks(query, given)
    (pairs, _) = model.calls[0]
    assert set(pairs[0][0]) == {"image", "text"}
    assert pairs[0][1].size == (32, 32)
    assert pairs[1][1]["text"] == "a boat"
    assert math.isnan(marks.scores[2])
    assert marks.failures[2].kind == "image"


def test_what_fails_in_a_batch_fails_alone() -> None:
    _, one = scorer("Identity")
    marks = one.marks(Query(text="q"), [Candidate(id="1", text="bad"), Candidate(id="2", text="good")])
    assert math.isnan(marks.scores[0])
    assert marks.scores[1] == 4.0
    assert "out of memory" in str(marks.failures[0])


def test_the_package_and_its_version_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"mmrerank\[rerankers\]"):
        cross_encoder.open("x")
    old = ModuleType("sentence_transformers")
    old.__version__ = "5.3.1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", old)
    with pytest.raises(MissingExtraError, match=r"5\.3\.1 is installed"):
        cross_encoder.open("x")


def test_modules_that_are_not_the_librarys_own_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(folder: str, **given: Any) -> Any:
        raise ValueError("Unrecognized configuration class")

    new = ModuleType("sentence_transformers")
    new.__version__, new.CrossEncoder = "6.2.0", refuse  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", new)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "subprocess.Popen", "path": ""}]))
    with pytest.raises(ModelError, match=r"'subprocess\.Popen'"):
        cross_encoder.open(str(tmp_path))
    (tmp_path / "modules.json").unlink()
    with pytest.raises(ModelError, match=r"has no modules\.json.*qwen3_vl_reranker:"):
        cross_encoder.open(str(tmp_path))


@pytest.fixture
def saved(tiny_qwen: Callable[[str], Path], tmp_path: Path) -> Path:
    """A tiny Qwen3-VL as Sentence Transformers saves a reranker."""
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    body = Transformer(str(tiny_qwen("qwen3_vl")), transformer_task="any-to-any")
    ids = [body.tokenizer(word)["input_ids"][0] for word in ("yes", "no")]
    CrossEncoder(modules=[body, LogitScore(*ids)], device="cpu").save_pretrained(str(tmp_path / "saved"))
    return tmp_path / "saved"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of a package that is not ours
def test_the_scores_are_those_of_the_package(saved: Path, picture: Callable[..., Image]) -> None:
    from sentence_transformers import CrossEncoder

    from mmrerank.chat.open import open_chat
    from mmrerank.images import decode
    from mmrerank.reranker import Reranker

    images = [picture(64, 64, n) for n in range(3)]
    direct = CrossEncoder(str(saved), device="cpu", local_files_only=True)
    pairs = [("a red boat", decode(i)) for i in images]
    expected = direct.predict(pairs, prompt="Find it.", show_progress_bar=False).reshape(-1).tolist()
    chat = open_chat(f"cross_encoder:{saved}", device="cpu")
    given = [Candidate(id=str(n), image=i) for n, i in enumerate(images)]
    result = Reranker("scorer", chat, instruction="Find it.").rank("a red boat", given)
    logits = chat.scorer.logits  # type: ignore[attr-defined] # of a scorer
    found = [result.explanation.scores[str(n)] for n in range(3)]
    assert found == pytest.approx(expected, abs=1e-5)
    relevance = {h.id: h.relevance for h in result}
    for n, value in enumerate(expected):
        assert relevance[str(n)] == pytest.approx(1 / (1 + math.exp(-value)) if logits else value, abs=1e-5)
