"""Carries out an evaluation of any benchmark: data, first stage, methods over its head, scores."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mmrerank import catalog, registry
from mmrerank.benchmark import Answer, Benchmark, Prepared, Run, Task
from mmrerank.budget import Price
from mmrerank.errors import CapabilityError, ModelError, UsageError
from mmrerank.evaluation import submission, tasks
from mmrerank.evaluation.experiment import first_stage as stage
from mmrerank.evaluation.experiment import two_stage
from mmrerank.evaluation.experiment.degraded import degraded_line
from mmrerank.evaluation.experiment.figures import save_figures, save_first
from mmrerank.evaluation.experiment.make_first_stage import MadeFirstStage, make_first_stage
from mmrerank.evaluation.experiment.outcome import Evaluation, MethodRun
from mmrerank.evaluation.experiment.provenance import candidates_digest, provenance, undated
from mmrerank.evaluation.experiment.recommend import PREFERRED
from mmrerank.evaluation.experiment.reranking import Item
from mmrerank.evaluation.experiment.resume import Progress, Resumable, Surroundings
from mmrerank.evaluation.experiment.search_again import search_again
from mmrerank.evaluation.experiment.settings import chat_options, data_digests, index_facts, settings
from mmrerank.evaluation.experiment.work import asks_model, gives_verdicts, work_digest
from mmrerank.evaluation.measure.runs import write_qrels, write_run
from mmrerank.evaluation.measure.scoring import RunLike, as_run
from mmrerank.ports import Chat, Embedder
from mmrerank.rerank.methods import MethodSpec
from mmrerank.rerank.profiles import folder_of


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What is to be evaluated, and with what; `mmrerank.evaluate` explains the fields.

    ``chat_options`` may be a function of the model's spec, where that is found out on the way.
    ``side_by_side`` has the result show methods beside each other.
    """

    benchmark: str
    data: Path | None = None
    split: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    run: Sequence[RunLike] = ()
    index: Path | str = ""
    shards: Path | str = ""
    embedder: str | Embedder = ""
    embedder_options: Mapping[str, Any] = field(default_factory=dict)
    images: Path | None = None
    depth: int = 0
    methods: Sequence[MethodSpec] = ()
    side_by_side: bool = False
    candidates: int = 20
    chat: str | Chat = ""
    chat_options: Callable[[str], Mapping[str, Any]] = lambda _: {}
    around: Surroundings = field(default_factory=Surroundings)
    runs: Path | None = None
    fresh: bool = False
    retry_failed: bool = False
    forecast: int | None = None
    price: Price | None = None
    submission: Path | None = None
    per_query: bool = False
    progress: Progress = lambda *_: None
    say: Callable[[str], None] = lambda _: None

    def carry_out(self) -> Evaluation:
        """Does it. Raises `UsageError`, `InputError`, and what models and indexes raise."""
        if self.candidates < 1:
            raise UsageError(f"candidates must be at least 1, not {self.candidates}")
        if self.forecast is not None and not self.methods:
            raise UsageError("a forecast is of methods: name them with --methods LIST or --rerank METHOD")
        tasks.split_of(self.benchmark, self.split)
        folder_of(self.around.prompts)  # a wrong one is reported before any work
        for spec in self.methods:
            _ = spec.options  # a wrong one is reported before any work
        if self.methods and isinstance(self.chat, str) and self.chat:
            registry.chosen("chat", self.chat, {**self.around.chat_options, **self.chat_options(self.chat)})
        with tempfile.TemporaryDirectory(prefix="mmrerank-eval-") as temporary:
            data = self._data(Path(temporary))
            return _Work(self, data, Path(temporary)).done()

    def _data(self, folder: Path) -> Prepared:
        """What is in the files, or what the benchmark makes where it needs none."""
        if self.data is not None:
            task = tasks.load_task(self.benchmark, self.data, split=self.split or None, options=self.options)
            return Prepared(task=task, images=self.images)
        made = tasks.benchmark_of(self.benchmark).prepare(folder, self.own_options, self.progress)
        if made is None:
            raise UsageError(f"--data DIR is needed: the folder of {self.benchmark}'s own files")
        split = tasks.split_of(self.benchmark, self.split)
        return replace(made, task=tasks.named(made.task, self.benchmark, split))

    @property
    def own_options(self) -> Any:
        """The benchmark's options."""
        return tasks.options_of(self.benchmark, self.options)


class _Work:
    """One experiment under way; ``data`` is its task, and an index where the benchmark made one."""

    def __init__(self, wanted: Experiment, data: Prepared, temporary: Path) -> None:
        self.wanted, self.data, self.task, self.temporary = wanted, data, data.task, temporary
        self.benchmark: Benchmark = tasks.benchmark_of(wanted.benchmark)
        self.images = wanted.images or data.images
        self.first: MadeFirstStage | None = None
        self.answers: list[Answer] = []

    def done(self) -> Evaluation:
        """The result of all steps."""
        self._lists()
        if not self.wanted.methods:
            return self._scored()
        return self._reranked()

    # ------------------------------------------------------------ first stage

    def _lists(self) -> None:
        """The lists to score or to rerank: those given, a first stage, or what is in the data (INQUIRE's)."""
        wanted, task = self.wanted, self.task
        if wanted.run and (wanted.index or wanted.shards):
            raise UsageError("give --run, or --index to make one, not both")
        if wanted.run:
            self.answers = [self._read(run) for run in wanted.run]
        elif wanted.index or wanted.shards or wanted.embedder or self.data.index:
            kept = wanted.forecast is None  # a forecast leaves nothing
            self.first = self._make(task, self.folder if kept else self.temporary)
            self.answers = [self.first.answer(task)]
            if kept:
                wanted.say(f"first stage in {self.first.path}")
        else:
            own = self.benchmark.own_runs(wanted.data) if wanted.data else ()
            self.answers = [tasks.read_answer(task, path) for path in own]
            if not own and task.first and wanted.methods:
                self.answers = [Answer(path=str(wanted.data), kind="run", rows=task.first)]

    def _read(self, run: RunLike) -> Answer:
        if isinstance(run, str | Path):
            return tasks.read_answer(self.task, Path(run))
        return tasks.answer_of(self.task, *as_run(run))

    def _make(self, task: Task, folder: Path) -> MadeFirstStage:
        wanted = self.wanted
        return make_first_stage(
            task, folder, index=wanted.index or self.data.index or "", shards=wanted.shards,
            embedder=wanted.embedder, options=wanted.embedder_options, images=self.images, depth=self._depth,
            progress=lambda done, of: wanted.progress("first stage", done, of),
        )  # fmt: skip

    @property
    def _depth(self) -> int:
        """How long a first stage's lists are; those of data that the benchmark made as what is reranked."""
        made = self.wanted.candidates if self.data.index else self.task.depth
        return self.wanted.depth or made

    def _scored(self) -> Evaluation:
        """The result without any method."""
        asked = bool(self.wanted.run or self.first)
        scored = bool(self.answers) and not (not self.task.qrels and asked)
        if asked and not scored:
            submission.check(self.task, self.answers)
        scores = tasks.score(self.task, self.answers) if scored else None
        origin = self._origin() if self.answers else {}
        if self.first:
            save_first(self.first.path, scores, origin, by_query=self.wanted.per_query)
        elif self.wanted.runs and scores is not None:
            for path in (Path(a.path) for a in self.answers):
                save_figures(
                    path, scores, self.wanted.runs, by_query=self.wanted.per_query, provenance=origin
                )
        return Evaluation(
            task=self.task,
            answers=self.answers,
            scores=scores,
            provenance=undated(origin),
            submission=self._submitted(self.answers),
            by_query=self.wanted.per_query,
        )

    def _submitted(self, answers: Sequence[Answer]) -> Sequence[Path]:
        if self.wanted.submission is None:
            return ()
        return tasks.write_submission(self.task, answers, self.wanted.submission)

    # ------------------------------------------------------------ methods

    @cached_property
    def chat(self) -> str | Chat:
        """The language model: the one named, or the one that is meant for the index; none if nobody asks."""
        if self.wanted.chat:
            return self.wanted.chat
        try:
            return catalog.chosen("chat", "", self._domain)
        except ModelError:
            if any(asks_model(spec) for spec in self.wanted.methods):
                raise
            return ""

    @property
    def _domain(self) -> str:
        return self.first.domain if self.first else self.data.domain

    @cached_property
    def around(self) -> Surroundings:
        """What stands around the model, with its options."""
        spec = self.chat if isinstance(self.chat, str) else ""
        more = self.wanted.chat_options(spec)
        own = self.wanted.around
        return replace(own, chat_options={**own.chat_options, **more}) if more else own

    @cached_property
    def folder(self) -> Path:
        """Where runs and journals go."""
        if self.wanted.runs:
            return self.wanted.runs
        home = Path("runs") / "eval"
        if self.data.index is None:
            return home / f"{self.task.benchmark}-{self.task.split}"
        own, k, around = self.wanted.own_options, self.wanted.candidates, self.around
        digest = work_digest(own, k, self.chat, around.limits, around.prompts)
        return home / f"{self.task.benchmark}-{digest}"

    @cached_property
    def judging(self) -> Resumable:
        """Journals and model for all methods."""
        wanted = self.wanted
        work = {
            "benchmark": self.task.benchmark, "split": self.task.split, "candidates": wanted.candidates,
            **dataclasses.asdict(wanted.own_options),
        }  # fmt: skip
        return Resumable(
            folder=self.folder, chat=self.chat, work=work, around=self.around,
            retriever=search_again(self.data, self.task, self.first, self.images, self.chat),
            fresh=wanted.fresh, retry_failed=wanted.retry_failed, limit=wanted.forecast,
            price=wanted.price, progress=wanted.progress, say=wanted.say,
        )  # fmt: skip

    def _reranked(self) -> Evaluation:
        runs = [a for a in self.answers if a.kind != "predictions"]
        if (n := len(runs)) != 1:
            raise UsageError(f"--rerank takes one run (--run FILE) or a first stage (--index X), not {n}")
        if self.wanted.submission is not None:
            submission.check(self.task, runs)  # before any model is asked
        if self.first:
            before = tasks.score(self.task, self.answers) if self.task.qrels else None
            save_first(self.first.path, before, self._origin(), by_query=self.wanted.per_query)
        run, task, k = Run(rows=runs[0].rows), self.task, self.wanted.candidates
        locate = self.first.locate if self.first else two_stage.in_folder(task, self.images)
        items = two_stage.items_of(task, run, k, locate, self.images)
        done = self._judged(items)
        judge, further = self._unanswerable(items, [m.spec for m in done.values()])
        heading = self._heading()
        left = {label: m.left for label, m in done.items()}
        if further:
            left[f"{judge}.no-match"] = further.left
        lists = [*done.values(), *([further] if further else [])]
        if self.wanted.forecast is not None or any(len(m.results) < m.asked for m in lists):
            return Evaluation(
                task=task, methods=done, side_by_side=self.wanted.side_by_side, heading=heading,
                forecast=left,
            )  # fmt: skip
        origin = self._origin(items)
        answers: list[Answer] = []
        by_query = self.wanted.per_query
        for label, one in done.items():
            answers = self._write(one, run, origin)
            if task.qrels:
                scores = tasks.score(task, answers)
                done[label] = replace(one, scores=scores)
                told = degraded_line(label, one.results)
                save_figures(Path(answers[0].path), scores, self.folder, by_query=by_query, told=told)
        results = {label: m.results for label, m in done.items()}
        if further:
            # the method that is asked them stands last, as the benchmark's figures are of it
            results = {n: r for n, r in results.items() if n != judge} | {judge: results[judge]}
        report = self.benchmark.report(task, results, further.results if further else ())
        last = next(reversed(done.values()))
        # as `none` is scored: a method that does nothing must gain nothing from ties
        unmoved = two_stage.unmoved(task, run, "first-stage")
        return Evaluation(
            task=task, answers=answers, scores=self._warned(last), methods=done, report=report,
            side_by_side=self.wanted.side_by_side, heading=heading,
            ceiling=two_stage.ceiling(task, run, k) if task.qrels else None,
            first_stage=two_stage.score(task, unmoved) if task.qrels else None,
            first_stage_digest=origin["first_stage"],
            provenance=undated(origin) | _failed(done),
            submission=self._submitted(answers), by_query=by_query,
        )  # fmt: skip

    def _judged(self, items: Sequence[Item]) -> dict[str, MethodRun]:
        done: dict[str, MethodRun] = {}
        for spec in self.wanted.methods:
            try:
                done[spec.label] = self._judge(spec, items)
            except CapabilityError as error:
                if not spec.among_all:
                    raise
                self.wanted.say(f"{spec.label} is left out: {error}")
        return done

    def _judge(self, spec: MethodSpec, items: Sequence[Item], more: str = "") -> MethodRun:
        parts = [spec.stem.removeprefix(spec.name).removeprefix("."), more]
        part = ".".join(p for p in parts if p)
        judged = self.judging.rerank(spec.name, items, options=spec.given, part=part)
        return MethodRun(spec=spec, asked=len(items), results=judged.results, left=judged.left)

    def _unanswerable(
        self, items: Sequence[Item], done: Sequence[MethodSpec]
    ) -> tuple[str, MethodRun | None]:
        """The method that gives verdicts, and what it makes of queries that no image meets."""
        task = self.benchmark.unanswerable(self.task)
        if task is None or self.first is None or not self.first.index:
            return "", None
        specs = sorted(done, key=lambda s: s.label != PREFERRED[0])
        judge = next((s for s in specs if gives_verdicts(s, items[0])), None)
        if judge is None:
            return "", None
        k = self.wanted.candidates
        made = stage.first_stage(task, self.first.index, self.first.embedder, images=self.images, depth=k)
        asked = two_stage.items_of(task, made.run, k, self.first.locate, self.images)
        return judge.label, self._judge(judge, asked, "no-match")

    # ------------------------------------------------------------ what is written and reported

    def _heading(self) -> dict[str, Any]:
        return {
            "benchmark": self.task.benchmark,
            "split": self.task.split,
            **dataclasses.asdict(self.wanted.own_options),
            "queries": len(self.task.queries),
            "candidates": self.wanted.candidates,
            "chat": self.chat if isinstance(self.chat, str) else self.chat.spec,
            "budget": self.around.limits,
        }

    def _origin(self, items: Sequence[Item] = ()) -> dict[str, Any]:
        """Where the figures come from; without ``items``, those of lists that nothing reranks."""
        config = settings(self.wanted, self.task, self.answers, self.first, self._depth)
        models = {**self.first.models, **index_facts(self.first)} if self.first else {}
        data = data_digests(self.task, self.wanted.data)
        if not items:
            return provenance(config=config, models=models, data=data)
        heading = self._heading()
        config |= {
            **heading,
            "methods": {s.label: dataclasses.asdict(s.options) for s in self.wanted.methods},
            "chat_options": chat_options(self.chat, self.around.chat_options),
        }
        if self.chat:
            models["chat"] = self.judging.identity
        return provenance(
            config=config, models=models, seed=heading.get("seed"), first_stage=candidates_digest(items),
            chat=self.judging.chat, prompts=self.around.prompts, data=data,
        )  # fmt: skip

    def _write(self, one: MethodRun, first: Run, origin: Mapping[str, Any]) -> list[Answer]:
        """``METHOD.trec``, ``.raw.jsonl`` (scores as they were), ``.jsonl`` (results), ``.json`` (origin)."""
        spec, folder, k = one.spec, self.folder, self.wanted.candidates
        orders = {r.query.id: [h.id for h in r.hits] for r in one.results}
        run = two_stage.unchanged(self.task, first, spec.stem)
        if spec.name != "none":  # which keeps the first stage's own scores
            own = {r.query.id: r.explanation.scores for r in one.results}
            run = two_stage.reordered(self.task, first, orders, k, spec.stem, own)
        path, raw = folder / f"{spec.stem}.trec", folder / f"{spec.stem}.raw.jsonl"
        write_run(path, run, raw=raw)
        config = {**origin["config"], "method": spec.name, "options": dataclasses.asdict(spec.options)}
        config.pop("methods")
        lines = [json.dumps(r.to_dict()) + "\n" for r in one.results]
        two_stage.write(folder / f"{spec.stem}.jsonl", "".join(lines))
        body = json.dumps({**origin, "config": config, **_failed({spec.label: one})}, indent=2)
        two_stage.write(folder / f"{spec.stem}.json", body + "\n")
        if self.data.index is not None:
            write_qrels(folder / "qrels.txt", self.task.qrels)
        main = replace(tasks.read_answer(self.task, raw if self.benchmark.TIES else path), path=str(path))
        return two_stage.answers(self.task, main, first, orders, spec.stem, folder)

    def _warned(self, one: MethodRun) -> Any:
        """The scores with a warning where a model knows little of such images."""
        model, scores = self.judging.chat, one.scores
        domain = "" if isinstance(model, str) else model.domain
        if scores is None or not domain or domain == self._domain:
            return scores
        spec = self.chat if isinstance(self.chat, str) else self.chat.spec
        warning = f"the language model {spec} is limited ({domain}); here its answers mean little"
        return replace(scores, warnings=[*scores.warnings, warning])


def _failed(methods: Mapping[str, MethodRun]) -> dict[str, Any]:
    """Which methods' judgements failed, and why, for provenance; nothing where none did."""
    names = ("failed", "queries_degraded", "failures")
    found = {n: {k: m.costs[k] for k in names} for n, m in methods.items() if m.costs["failed"]}
    return {"failures": found} if found else {}
