"""Built-in plug-ins beside their interfaces, for mypy (`make check`); `test_house` sees that none is missing."""

from __future__ import annotations

from mmrerank.chat import openai, transformers, vllm
from mmrerank.chat.fakes import oracle, replay, scripted
from mmrerank.corpus import folder, webdataset
from mmrerank.embed import open_clip, qwen3_vl, unime
from mmrerank.index.stores import exact, faiss
from mmrerank.ports import ChatPlugin, CorpusPlugin, EmbedderPlugin, StorePlugin, Strategy
from mmrerank.rerank.strategies import (
    cascade,
    cotrr,
    dear,
    e2rank,
    erank,
    feedback,
    first,
    grouprank,
    icr,
    judge,
    listwise,
    multivector,
    mvp,
    none,
    plan,
    pointwise,
    prorank,
    prp,
    rank_r1,
    reasonrank,
    setwise,
    tsprank,
    unime_reranker,
    vote,
)

STRATEGIES: list[Strategy] = [
    cascade, cotrr, dear, e2rank, erank, feedback, first, grouprank, icr, judge, listwise, multivector, mvp,
    none, plan, pointwise, prorank, prp, rank_r1, reasonrank, setwise, tsprank, unime_reranker, vote,
]  # fmt: skip
CHATS: list[ChatPlugin] = [openai, oracle, replay, scripted, transformers, vllm]
EMBEDDERS: list[EmbedderPlugin] = [open_clip, qwen3_vl, unime]
STORES: list[StorePlugin] = [exact, faiss]
CORPORA: list[CorpusPlugin] = [folder, webdataset]
