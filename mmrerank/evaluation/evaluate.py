"""`mmrerank.evaluate`: a benchmark's files checked, a run scored, methods compared over its first stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmrerank.benchmark import Run
from mmrerank.budget import Budget, Meter, Price
from mmrerank.evaluation.experiment.carry_out import Experiment
from mmrerank.evaluation.experiment.outcome import Evaluation
from mmrerank.evaluation.experiment.resume import Surroundings
from mmrerank.evaluation.measure.scoring import RunLike
from mmrerank.evaluation.tasks import benchmark_of
from mmrerank.paths import expanded
from mmrerank.ports import Chat, Embedder
from mmrerank.rerank.methods import method_specs


def evaluate(
    benchmark: str,
    *,
    data: Path | str | None = None, split: str = "", options: Mapping[str, Any] | None = None,
    methods: Sequence[str] | None = None, candidates: int = 20,
    chat: str | Chat = "", chat_options: Mapping[str, Any] | None = None,
    prompts: Path | str = "",
    run: RunLike | Sequence[RunLike] = (), index: Path | str = "", shards: Path | str = "",
    embedder: str | Embedder = "", embedder_options: Mapping[str, Any] | None = None,
    images: Path | str | None = None, depth: int = 0,
    runs: Path | str | None = None, fresh: bool = False, retry_failed: bool = False,
    forecast: int | None = None, price: Price | None = None,
    cache: Path | str = "", record: Path | str = "", ledger: Path | str = "",
    budget: Budget | None = None, total: Budget | Meter | None = None,
    submission: Path | str | None = None, per_query: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> Evaluation:  # fmt: skip
    """Evaluates methods on a benchmark, as ``mmrerank eval NAME`` does.

    ``data`` is the folder of its own files (a benchmark that draws its own needs none), ``options`` are its
    own. Without more, the files are checked. ``run`` (a file, a `mmrerank.ports.Run`, or scores by query and
    document) is scored; ``index``, ``shards`` or ``embedder`` make a first stage; ``embedder_options`` are
    the embedder's, such as ``{"text_weight": 0.3}``. ``methods``, such as
    ``["cotrr", "prp(schedule=heap;top=5)"]``, rerank the first ``candidates`` of each list with ``chat``;
    ``none`` is always among them. Finished queries are kept in journals in ``runs`` (default
    ``./runs/eval/...``) and not judged again; ``fresh`` starts over, ``retry_failed`` judges queries again of
    which a judgement failed. ``forecast`` judges no more than so many queries of each list and says what the
    others take. ``cache``, ``record``, ``prompts``, ``budget`` (a query's) and ``total`` are as in
    `mmrerank.Reranker`.
    ``submission`` is a folder for the official files. What a run scores is written beside it
    (``METHOD.metrics.json``); with ``per_query`` also the value of each query (``METHOD.per-query.tsv``).

    Raises `UsageError` for a wrong name or option, `InputError` for files that are missing or wrong, and
    `ModelError` where no model was named and none is meant for the images.

    >>> import mmrerank
    >>> found = mmrerank.evaluate("cirr", data="DATA/cirr", run="cirr.trec")  # doctest: +SKIP
    >>> found.scores.metrics["R@1"].value  # doctest: +SKIP
    """
    wanted = methods if methods is not None or run else benchmark_of(benchmark).METHODS
    specs = method_specs(["none", *wanted]) if wanted else []
    around = Surroundings(
        cache=cache, record=record, ledger=ledger, budget=budget, chat_options=chat_options or {},
        prompts=prompts,
        total=Meter(total) if isinstance(total, Budget) else total,
    )  # fmt: skip
    return Experiment(
        benchmark=benchmark, data=_path(data), split=split, options=options or {}, run=_listed(run),
        index=index, shards=shards, embedder=embedder, embedder_options=embedder_options or {},
        images=_path(images), depth=depth,
        methods=specs, side_by_side=bool(specs), candidates=candidates, chat=chat, around=around,
        runs=_path(runs), fresh=fresh, retry_failed=retry_failed, forecast=forecast, price=price,
        submission=_path(submission), per_query=per_query, progress=progress, say=say,
    ).carry_out()  # fmt: skip


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else expanded(path)


def _listed(run: RunLike | Sequence[RunLike]) -> Sequence[RunLike]:
    return [run] if isinstance(run, str | Path | Run | Mapping) else run
