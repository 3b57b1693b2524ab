"""Built-in plug-ins beside their interfaces, for mypy; `test_house` sees that none is missing."""

from __future__ import annotations

from mmrerank.chat import colpali, openai, transformers, vllm
from mmrerank.chat.fakes import oracle, replay, scripted
from mmrerank.cli import (
    app,
    cache,
    compare,
    doctor,
    index,
    info,
    recommend,
    rerank,
    score,
    search,
    usage,
    verify,
)
from mmrerank.cli import eval as eval_verb
from mmrerank.cli import list as list_verb
from mmrerank.corpus import embeddings, folder, hf, table, webdataset
from mmrerank.embed import gme, jina_v4, open_clip, qwen3_vl, unime, vlm2vec
from mmrerank.evaluation.benchmarks import (
    circo,
    cirr,
    fashioniq,
    flickr30k,
    inquire_fullrank,
    inquire_rerank,
    mmeb,
    mrb,
    mscoco,
    visdial,
)
from mmrerank.evaluation.benchmarks import folder as folder_benchmark
from mmrerank.index.stores import exact, faiss, faiss_gpu, faiss_hnsw, faiss_ivfpq, faiss_rabitq, milvus
from mmrerank.ports import (
    BenchmarkPlugin,
    ChatPlugin,
    CorpusPlugin,
    EmbedderPlugin,
    ScorerPlugin,
    StorePlugin,
    Strategy,
    VerbPlugin,
)
from mmrerank.rerank.strategies import (
    cascade,
    cotrr,
    dear,
    describe,
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
    scorer,
    setwise,
    tsprank,
    unime_reranker,
    vote,
)
from mmrerank.scorers import cross_encoder, jina_m0, lychee, mm_r5, monoqwen2, qwen3_vl_reranker
from mmrerank.scorers import rerank as rerank_server
from mmrerank.scorers import unime_reranker as unime_scorer

STRATEGIES: list[Strategy] = [
    cascade, cotrr, dear, describe, e2rank, erank, feedback, first, grouprank, icr, judge, listwise,
    multivector, mvp, none, plan, pointwise, prorank, prp, rank_r1, reasonrank, scorer, setwise, tsprank,
    unime_reranker, vote,
]  # fmt: skip
CHATS: list[ChatPlugin] = [colpali, openai, oracle, replay, scripted, transformers, vllm]
SCORERS: list[ScorerPlugin] = [
    cross_encoder, jina_m0, lychee, mm_r5, monoqwen2, qwen3_vl_reranker, rerank_server, unime_scorer,
]  # fmt: skip
EMBEDDERS: list[EmbedderPlugin] = [gme, jina_v4, open_clip, qwen3_vl, unime, vlm2vec]
STORES: list[StorePlugin] = [exact, faiss, faiss_gpu, faiss_hnsw, faiss_ivfpq, faiss_rabitq, milvus]
CORPORA: list[CorpusPlugin] = [embeddings, folder, hf, table, webdataset]
BENCHMARKS: list[BenchmarkPlugin] = [
    circo, cirr, fashioniq, flickr30k, folder_benchmark, inquire_fullrank, inquire_rerank, mmeb, mrb, mscoco,
    visdial,
]  # fmt: skip
VERBS: list[VerbPlugin] = [
    app, cache, compare, doctor, eval_verb, index, info, list_verb, recommend, rerank, score, search, usage,
    verify,
]  # fmt: skip
