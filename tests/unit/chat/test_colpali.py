"""ColQwen2 on a small random checkpoint: `multivector` gives the scores of the model's own processor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mmrerank import Reranker
from mmrerank.chat.open import open_chat
from mmrerank.chat.probe import probe
from mmrerank.errors import CapabilityError, ModelError
from mmrerank.rerank import states
from mmrerank.types import Candidate, Image, Query

pytestmark = pytest.mark.slow
SIZES = [(56, 56), (84, 56), (112, 140)]


@pytest.fixture(scope="module")
def colqwen(tmp_path_factory: pytest.TempPathFactory, tiny_qwen: Callable[[str], Path]) -> Path:
    import torch
    from transformers import (
        AutoImageProcessor,
        AutoTokenizer,
        ColQwen2Config,
        ColQwen2ForRetrieval,
        ColQwen2Processor,
        Qwen2VLConfig,
    )

    place, folder = tiny_qwen("qwen2_vl"), tmp_path_factory.mktemp("colqwen")
    torch.manual_seed(1)
    config = ColQwen2Config(vlm_config=Qwen2VLConfig.from_pretrained(place).to_dict(), embedding_dim=16)
    ColQwen2ForRetrieval(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(place)
    ColQwen2Processor(AutoImageProcessor.from_pretrained(place), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    paths = []
    for n, (width, height) in enumerate(SIZES):
        paths.append(folder / f"{n}.png")
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).save(paths[-1])
    return paths


def own_scores(folder: Path, words: str, pictures: list[Path]) -> list[float]:
    """Written out: one item at a time, projected states of all tokens, the mean of the best cosines."""
    import torch
    from transformers import ColQwen2ForRetrieval, ColQwen2Processor

    processor = ColQwen2Processor.from_pretrained(folder)
    model = ColQwen2ForRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        asked = model(**processor.process_queries(text=[words])).embeddings[0]
        found = []
        for path in pictures:
            with PIL.Image.open(path) as image:
                rows = model(**processor.process_images(images=[image.convert("RGB")])).embeddings[0]
            found.append(float((asked @ rows.T).max(1).values.mean()))
    return found


def test_multivector_gives_the_models_own_scores(colqwen: Path, pictures: list[Path]) -> None:
    reranker = Reranker("multivector", f"colpali:{colqwen}")
    result = reranker.rank("a red boat", pictures)
    wanted = own_scores(colqwen, "a red boat", pictures)
    assert [result.explanation.scores[p.as_posix()] for p in pictures] == pytest.approx(wanted, abs=1e-5)
    assert [h.id for h in result] == [
        pictures[n].as_posix() for n in sorted(range(len(wanted)), key=lambda n: -wanted[n])
    ]
    assert result.usage.images == len(pictures)
    assert result.hits[0].relevance == pytest.approx(max(wanted), abs=1e-5)


def test_batches_budgets_and_broken_images(colqwen: Path, pictures: list[Path]) -> None:
    chat = open_chat(f"colpali:{colqwen}", batch_size=2)
    query = Query(text="a red boat")
    whole = [Candidate(id=p.name, image=Image(path=p)) for p in pictures]
    asks = [states.tokens_of_candidate(c, query, image_tokens=64) for c in whole]
    broken = states.tokens_of_candidate(Candidate(id="x", image=Image(data=b"no picture")), query)
    together = chat.reply([asks[0], broken, *asks[1:], states.tokens_of_text("a red boat", query)])
    assert together[1].error is not None
    assert together[1].error.kind == "image"
    for reply, ask in zip([together[0], *together[2:4]], asks, strict=True):
        alone: Any = chat.reply([ask])[0].states[0]
        assert reply.states[0] == pytest.approx(alone, abs=1e-5)
        assert np.linalg.norm(alone, axis=1) == pytest.approx(1, abs=1e-5)
    few, many = (
        chat.reply([states.tokens_of_candidate(whole[2], query, image_tokens=n)])[0].states[0]
        for n in (4, 20)
    )
    assert len(many) - len(few) == 20 - 4


def test_it_answers_nothing_else(colqwen: Path, tiny_qwen: Callable[[str], Path]) -> None:
    with pytest.raises(CapabilityError):
        Reranker("pointwise", f"colpali:{colqwen}")
    with pytest.raises(ModelError, match="ColPali"):
        open_chat(f"colpali:{tiny_qwen('qwen2_vl')}")


def test_doctor_looks_at_its_vectors(colqwen: Path) -> None:
    found = {f.name: f for f in probe(open_chat(f"colpali:{colqwen}"))}
    assert found["vectors"].status == "ok"
    assert found["vectors"].detail.endswith("of 16 numbers")
    assert found["offers"].detail == "token_embeddings"
