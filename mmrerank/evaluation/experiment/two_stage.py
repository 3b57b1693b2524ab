"""The two stages of an evaluation: the head of each list as a reranker takes it, and put back in a new order.

The head is the first ``candidates`` of each list; what lies beyond keeps its order. The ceiling is what the
best order of the head would score: no reranker can pass it. Documents that a task has ranked apart
(`mmrerank.benchmark.Task.apart`) are lists of their own, whose queries are called ``ID#apart``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmrerank import writing
from mmrerank.benchmark import APART, Answer, Ranked, Run, Scored, Scores, Task
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation import tasks as benchmark
from mmrerank.evaluation.experiment.first_stage import image_file, query_of
from mmrerank.evaluation.experiment.own_scores import with_scores
from mmrerank.evaluation.experiment.reranking import Item
from mmrerank.evaluation.measure.metrics import in_order
from mmrerank.evaluation.measure.runs import write_run
from mmrerank.types import Candidate, Image, Ranking

Locate = Callable[[str], Image]
"""The picture of a document. Raises `InputError` when there is none."""


def in_folder(task: Task, images: Path | None) -> Locate:
    """Pictures below a folder; without one, those that lie in the benchmark's own data."""
    if images is None and task.pictures is not None:
        return task.pictures
    return lambda document: Image(path=image_file(task, document, images))


def items_of(task: Task, run: Run, candidates: int, locate: Locate, images: Path | None) -> list[Item]:
    """The queries of ``run`` with the head of their lists, as a reranker takes them.

    Documents that the protocol leaves out are not in the head. A picture that is not there costs its
    document's place: it is left out of the questions and named. Raises `InputError` where most are not there,
    which is another folder's fault.
    """
    if candidates < 1:
        raise UsageError(f"candidates must be at least 1, not {candidates}")
    items, pictures = [], _Pictures(task=task, locate=locate, folder=images or Path())
    for id_ in task.queries:
        if id_ not in run.rows:
            continue
        head = _listed(task, id_, run.rows[id_])[:candidates]
        if not len(head):
            continue
        members = tuple(
            candidate_of(task, d, s, pictures.of) for d, s in zip(head.ids, head.scores, strict=True)
        )
        items.append((query_of(task, id_, images), Ranking(members)))
    if not items:
        raise InputError(f"the run answers no query of {task.benchmark} {task.split}")
    for id_, few in _apart(task, run).items():
        members = tuple(
            candidate_of(task, d, s, pictures.of) for d, s in zip(few.ids, few.scores, strict=True)
        )
        items.append((replace(query_of(task, id_, images), id=_named(id_)), Ranking(members)))
    pictures.check()
    return items


def _named(query: str) -> str:
    return f"{query}#{APART}"


def _apart(task: Task, run: Run) -> dict[str, Ranked]:
    """The documents that each query has ranked apart, in the order of its list; those that lack are last."""
    found: dict[str, Ranked] = {}
    for query in (q for q in task.queries if q in task.apart and q in run.rows):
        listed = benchmark.only(_listed(task, query, run.rows[query]), task.apart[query])
        lacking = sorted(task.apart[query] - set(listed.ids))
        least = min(listed.scores, default=0.0)
        found[query] = Ranked([*listed.ids, *lacking], [*listed.scores, *(least for _ in lacking)])
    return found


def answers(
    task: Task, main: Answer, run: Run, orders: Mapping[str, Sequence[str]], tag: str, folder: Path | None
) -> list[Answer]:
    """``main``, and the answer to the question that is asked apart where there is one, written to
    ``TAG.apart.trec`` in ``folder``.
    """
    if not task.apart:
        return [main]
    new = {q: orders.get(_named(q), r.ids) for q, r in _apart(task, run).items()}
    apart = Run(rows={q: in_order(ids) for q, ids in new.items()}, tag=tag)
    path = (folder or Path()) / f"{tag}.{APART}.trec"
    if folder is not None:
        write_run(path, apart)
    rows = {q: Ranked.of(r) for q, r in apart.rows.items()}
    return [main, Answer(path=str(path), kind=APART, rows=rows)]


@dataclass(kw_only=True)
class _Pictures:
    """The pictures of documents, and those that are not there."""

    task: Task
    locate: Locate
    folder: Path
    found: dict[str, Image] = field(default_factory=dict)
    missing: dict[str, InputError] = field(default_factory=dict)

    def of(self, document: str) -> Image:
        """Its picture, or the place where it should be."""
        if document not in self.found:
            try:
                self.found[document] = self.locate(document)
            except InputError as error:
                self.missing[document] = error
                file = self.task.files.get(document, document)
                self.found[document] = Image(path=self.folder / file)
        return self.found[document]

    def check(self) -> None:
        """Raises `InputError` where most are not there."""
        if self.missing and 2 * len(self.missing) > len(self.found):
            raise next(iter(self.missing.values()))


def _listed(task: Task, query: str, rows: Sequence[Scored]) -> Ranked:
    """A list without what the protocol leaves out, equal scores in an order that no label decides."""
    ranked = benchmark.without(task, {query: Ranked.of(rows)})[query]
    return benchmark.benchmark_of(task.benchmark).settle_ties(query, ranked)


def candidate_of(task: Task, document: str, score: float, locate: Locate) -> Candidate:
    """A document as models get it."""
    text = task.texts.get(document)
    if text is not None and document not in task.files:
        return Candidate(id=document, text=text, score=score)
    return Candidate(id=document, image=locate(document), text=text or None, score=score)


def reordered(
    task: Task,
    run: Run,
    orders: Mapping[str, Sequence[str]],
    candidates: int,
    tag: str,
    own: Mapping[str, Mapping[str, float]] | None = None,
) -> Run:
    """``run`` with the heads in new orders; a query without one keeps its list.

    ``own`` are the method's scores by query: see `own_scores`. Without them no ties are left.
    """
    rows = {}
    for query, listed in run.rows.items():
        ranked = _listed(task, query, listed)
        order = orders.get(query)
        tail = ranked.ids[candidates:]
        # a method that searches again may have found some of those
        ids = list(ranked.ids) if order is None else list(dict.fromkeys((*order, *tail)))
        rows[query] = with_scores(ids, (own or {}).get(query, {}))
    return Run(rows=rows, tag=tag)


def unchanged(task: Task, run: Run, tag: str) -> Run:
    """``run`` without what the protocol leaves out, in the order that is reranked, with its own scores."""
    return Run(rows={q: _listed(task, q, r) for q, r in run.rows.items()}, tag=tag)


def unmoved(task: Task, run: Run, tag: str) -> Run:
    """`unchanged`, with equal scores only where the benchmark's metrics say what they mean."""
    if benchmark.benchmark_of(task.benchmark).TIES:
        return unchanged(task, run, tag)
    return reordered(task, run, {}, 0, tag)


def ceiling(task: Task, run: Run, candidates: int) -> Scores:
    """What the best order of each head scores."""
    orders = {}
    for query, listed in run.rows.items():
        head = _listed(task, query, listed)[:candidates]
        orders[query] = _best(head.ids, task.qrels.get(query, {}))
    orders |= {_named(q): _best(r.ids, task.qrels.get(q, {})) for q, r in _apart(task, run).items()}
    return score(task, reordered(task, run, orders, candidates, "ceiling"), orders)


def _best(ids: Sequence[str], judged: Mapping[str, int]) -> list[str]:
    # equal ones as the data names them: CIRCO's R@k asks for its first right answer alone
    named = {d: n for n, d in enumerate(judged)}
    return sorted(ids, key=lambda d: (-judged.get(d, 0), named.get(d, 0)))


def score(task: Task, run: Run, orders: Mapping[str, Sequence[str]] | None = None) -> Scores:
    """Scores a run that is in memory; ``orders`` are those of what is ranked apart."""
    rows = {q: Ranked.of(r) for q, r in run.rows.items() if q in task.queries}
    rows = dict(benchmark.benchmark_of(task.benchmark).canonical(task, rows))
    main = Answer(path=run.tag, kind="run", rows=rows)
    return benchmark.score(task, answers(task, main, run, orders or {}, run.tag, None))


def write(path: Path, text: str) -> None:
    """Writes a file in one step. Raises `InputError`."""
    try:
        writing.write(path, text.encode())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
