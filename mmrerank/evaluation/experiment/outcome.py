"""What an evaluation found: figures of a run, or of methods beside each other, with gains and costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrerank import writing
from mmrerank.benchmark import Answer, Measured, Scores, Task
from mmrerank.errors import InputError
from mmrerank.evaluation.compare.rendering import Cell, Table
from mmrerank.evaluation.experiment.degraded import degraded_line, failures_dict, written_line
from mmrerank.evaluation.experiment.forecast import Forecast
from mmrerank.evaluation.experiment.gains import filled, gain_of, interval_of, rounded, values_of
from mmrerank.evaluation.experiment.published import headline, published_table
from mmrerank.evaluation.measure.short import MARK, NOTE
from mmrerank.evaluation.per_query import labelled, lines, per_query_dict
from mmrerank.evaluation.score import figure, scores_table
from mmrerank.evaluation.submission import has_files
from mmrerank.evaluation.tabular import Tabular
from mmrerank.evaluation.tasks import benchmark_of
from mmrerank.rerank.methods import MethodSpec
from mmrerank.results import SearchResult
from mmrerank.types import Usage

_TESTED = 8  # metrics that get intervals, gains and figures by category


@dataclass(frozen=True, kw_only=True)
class MethodRun:
    """One method of an evaluation: its results, what they score, and what is left of the queries asked."""

    spec: MethodSpec
    asked: int
    results: Sequence[SearchResult]
    left: Forecast
    scores: Scores | None = None

    @property
    def costs(self) -> dict[str, Any]:
        """What all queries cost together, how many judgements failed, and why."""
        return {
            "usage": dataclasses.asdict(self.usage),
            "failed": sum(r.repairs.failed for r in self.results),
            "repaired": sum(r.repairs.repaired for r in self.results),
            **({"written": again} if (again := sum(r.repairs.written for r in self.results)) else {}),
            "queries_degraded": sum(r.degraded for r in self.results),
            "failures": failures_dict(self.results),
        }

    @property
    def usage(self) -> Usage:
        """What all queries cost together."""
        return sum((r.usage for r in self.results), Usage())


@dataclass(frozen=True, kw_only=True)
class Evaluation(Tabular):
    """What `mmrerank.evaluate` found.

    ``scores`` are those of the run that was given, made or reranked last; None where labels are private or
    nothing was scored. ``methods`` are by label, ``forecast`` what unfinished queries will take: then there
    are no figures yet. ``ceiling`` is what the best order of the reranked candidates scores, and ``report``
    what the benchmark adds of its own.
    """

    task: Task
    answers: Sequence[Answer] = ()
    scores: Scores | None = None
    methods: Mapping[str, MethodRun] = field(default_factory=dict)
    side_by_side: bool = False
    heading: Mapping[str, Any] = field(default_factory=dict)
    forecast: Mapping[str, Forecast] = field(default_factory=dict)
    ceiling: Scores | None = None
    first_stage: Scores | None = None
    first_stage_digest: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    submission: Sequence[Path] = ()
    by_query: bool = False
    """Whether plain data and `per_query_lines` have the value of each query."""

    @property
    def per_query_lines(self) -> Iterator[str]:
        """The values of each query, as `mmrerank.evaluation.per_query`; after the method's name where there
        are several.
        """
        if self.by_query and self.side_by_side:
            return labelled({label: m.scores for label, m in self.methods.items()})
        return lines(self.scores) if self.by_query and self.scores else iter(())

    @property
    def warnings(self) -> Sequence[str]:
        """What a reader of the figures must know."""
        if self.scores is not None:
            return [*self.scores.warnings, *self._failures()]
        found = [*self.task.warnings, *(w for a in self.answers for w in a.warnings), *self._failures()]
        return list(dict.fromkeys(found))

    @property
    def degraded(self) -> bool:
        """Whether judgements failed, so that the first-stage order stands there."""
        return any(r.degraded for m in self.methods.values() for r in m.results)

    # ------------------------------------------------------------ plain data

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON: what ``mmrerank eval NAME --output json`` prints."""
        if self.forecast:
            left = {label: f.to_dict() for label, f in self.forecast.items()}
            if self.side_by_side:
                return {**self.heading, "forecast": left}
            ((label, one),) = left.items()
            return {"method": self.methods[label].spec.name, "forecast": one}
        if self.side_by_side:
            return self._side_by_side()
        if self.scores is None:
            return {**self._checked(), **self._one_method()}
        more = per_query_dict(self.scores) if self.by_query else {}
        return {**self.scores.to_dict(), "warnings": list(self.warnings), **more, **self._one_method()}

    def _checked(self) -> dict[str, Any]:
        return {
            "benchmark": self.task.benchmark,
            "split": self.task.split,
            "queries": len(self.task.queries),
            "labelled": len(self.task.qrels),
            "images": None if self.task.gallery is None else len(self.task.gallery),
            "checked": [a.path for a in self.answers],
            "warnings": list(self.warnings),
        }

    def _one_method(self) -> dict[str, Any]:
        if not self.methods:
            return {"provenance": dict(self.provenance)} if self.provenance else {}
        (one,) = self.methods.values()
        body = {"method": one.spec.name, "candidates": self.heading["candidates"], **one.costs}
        if self.ceiling and self.first_stage:
            body["ceiling"] = values_of(self.ceiling)
            body["first_stage"] = {"digest": self.first_stage_digest, "metrics": values_of(self.first_stage)}
        return {**body, "provenance": dict(self.provenance)}

    def _side_by_side(self) -> dict[str, Any]:
        report = dict(self.report)
        more = report.pop("methods", {})
        return {
            **self.heading,
            "methods": {label: {**self.row(label), **more.get(label, {})} for label in self.methods},
            "ceiling": rounded(values_of(self.ceiling)) if self.ceiling else None,
            **report,
            "warnings": list(self.warnings),
            # what is printed is the same for the same figures; the files say the date as well
            "provenance": dict(self.provenance),
        }

    def row(self, label: str) -> dict[str, Any]:
        """A method's figures, their intervals, its gain over ``none``, and what it cost."""
        one = self.methods[label]
        usage = {**one.costs["usage"], "seconds": round(one.usage.seconds, 1)}
        costs = {**one.costs, "usage": usage}
        if one.scores is None:
            return costs
        metrics = one.scores.metrics
        body: dict[str, Any] = rounded(values_of(one.scores))
        tested = [metrics[n] for n in headline(list(metrics))[:_TESTED]]
        body["ci"] = {m.name: interval_of(filled(m), m) for m in tested}
        base = self.methods["none"].scores if "none" in self.methods else None
        if base is not None:
            body["gain"] = {m.name: gain_of(m, base.metrics[m.name]) for m in tested}
        body["by_category"] = self._by_category(tested)
        if short := {n: found.to_dict() for n, m in metrics.items() if (found := m.too_short)}:
            body["short"] = short
        if self.by_query:
            body |= per_query_dict(one.scores)
        return {**body, **costs}

    def _by_category(self, metrics: Sequence[Measured]) -> dict[str, Any]:
        members: dict[str, list[str]] = {}
        for query in self.task.qrels:
            if query in self.task.categories:
                members.setdefault(self.task.categories[query], []).append(query)
        tables = {m.name: filled(m) for m in metrics if {*m.expected} >= {*self.task.qrels}}
        return {
            c: {n: round(sum(v[q] for q in ids) / len(ids), 4) for n, v in tables.items()}
            for c, ids in sorted(members.items())
        }

    @property
    def records(self) -> list[dict[str, Any]]:
        """A row for each method with its figures and costs, or for each metric of one run."""
        if self.side_by_side and not self.forecast:
            return [
                {
                    "method": label,
                    **(values_of(one.scores) if one.scores else {}),
                    "short": ", ".join(n for n, m in _metrics(one.scores).items() if m.too_short),
                    **one.costs["usage"],
                    "failed": one.costs["failed"],
                }
                for label, one in self.methods.items()
            ]
        if self.forecast:
            return [{"method": n, **f.to_dict()} for n, f in self.forecast.items()]
        metrics = self.scores.metrics if self.scores else {}
        return [{"metric": n, **m.to_dict()} for n, m in metrics.items()]

    # ------------------------------------------------------------ tables

    @property
    def tables(self) -> tuple[Table, ...]:  # noqa: D102
        if self.forecast:
            return (self._forecast_table(),)
        if self.side_by_side and self.methods:
            report = self._side_by_side()
            return (self._methods_table(report), *benchmark_of(self.task.benchmark).tables(report))
        if self.scores is None:
            return (self._checked_table(),)
        shown = headline(list(self.scores.metrics))
        title = f"{self.task.benchmark} {self.task.split}"
        found = scores_table(self.scores, title=title, only=shown)
        notes = (*found.notes, *self._beside_scores(shown))
        tables = [dataclasses.replace(found, notes=notes)]
        if published := published_table(self.task, shown):
            tables.append(published)
        return tuple(tables)

    def _beside_scores(self, shown: Sequence[str]) -> list[str]:
        """What stands beside the first figure of a reranked run."""
        if not (self.methods and self.first_stage and self.ceiling and self.scores):
            return []
        (one,), name = self.methods.values(), shown[0]
        before, best = (
            figure(m, m.value) + (MARK if m.too_short else "")
            for m in (self.first_stage.metrics[name], self.ceiling.metrics[name])
        )
        return [
            f"{name}: first stage {before}, best order of its first {self.heading['candidates']} {best}; "
            f"{one.usage.calls} calls, "
            f"{one.costs['failed']} failed, {one.costs['repaired']} repaired",
            *self._failures(),
        ]

    def _forecast_table(self) -> Table:
        rows = [[Cell(text=label), Cell(text=str(f))] for label, f in self.forecast.items()]
        return Table(title="What is left", columns=["method", "forecast"], rows=rows)

    def _checked_table(self) -> Table:
        images = "" if self.task.gallery is None else f", {len(self.task.gallery)} images"
        where = f"{self.task.benchmark} {self.task.split}"
        private = f"the labels of {self.task.split} are not public"
        sound = "the files are sound"
        if self.submission or (self.answers and not self.methods):
            made = not self.submission and any(a.kind == "run" for a in self.answers)
            sound = "the submission is sound"
            if made:
                own = has_files(self.task.benchmark)
                sound = "a submission can be made (--submission DIR)" if own else "the lists are complete"
        return Table(
            title=f"{where}: {len(self.task.queries)} queries{images}; {sound}",
            columns=["file", "answers", ""],
            rows=[
                [
                    Cell(text=a.path),
                    Cell(text=f"{len(a.rows)} queries", numeric=True),
                    Cell(text="" if self.task.qrels else private),
                ]
                for a in self.answers
            ],
        )

    def _methods_table(self, report: Mapping[str, Any]) -> Table:
        scored = next(iter(self.methods.values())).scores
        names = headline(list(scored.metrics))[:4] if scored else []
        first, others = names[:1], names[1:]
        gains = [*first] if "none" in self.methods else []
        columns = ["method", *first, *(["gain, 95% interval", "than none"] if gains else [])]
        rows = []
        for label, row in report["methods"].items():
            cells = [Cell(text=label), *(_marked(row, n) for n in first)]
            for name in gains:
                gain = {} if label == "none" else row["gain"][name]
                lower = bool(scored and scored.metrics[name].lower_is_better)
                word = _word(gain, lower)
                # the first stage's order against itself shows nothing
                word = "judgements failed" if word == "unclear" and row["failed"] else word
                cells += [_number(_gain_text(gain)), Cell(text=word)]
            cells += [_marked(row, n) for n in others]
            rows.append([*cells, *_costs(row)])
        if report["ceiling"]:
            short = {n: m.too_short for n, m in _metrics(self.ceiling).items()}
            row = {**report["ceiling"], "short": {n for n, found in short.items() if found}}
            best = [_marked(row, n) for n in first]
            blank = [Cell(text="")] * (2 * len(gains))
            best += [*blank, *(_marked(row, n) for n in others)]
            rows.append([Cell(text="(ceiling)"), *best, *[Cell(text="")] * 5])
        own = "".join(f", {k} {v}" for k, v in self._options.items())
        return Table(
            title=f"{self.task.benchmark} {self.task.split}{own}: {report['queries']} queries; the first "
            f"{report['candidates']} candidates are reranked",
            columns=[*columns, *others, "calls", "in", "out", "s", "fail/rep"],
            rows=rows,
            notes=[
                "calls, tokens and seconds are those of all queries together",
                *([NOTE] if any("short" in row for row in report["methods"].values()) else []),
                *self._failures(),
            ],
        )

    @property
    def _options(self) -> dict[str, Any]:
        """The benchmark's numbers, and its other options where they are not the default."""
        found = {}
        for option in dataclasses.fields(benchmark_of(self.task.benchmark).Options):
            value = self.heading.get(option.name)
            if option.name != "queries" and (isinstance(value, int) or value != option.default):
                found[option.name] = value
        return found

    def _failures(self) -> list[str]:
        told = (degraded_line, written_line)
        lines = [line(label, one.results) for label, one in self.methods.items() for line in told]
        return [line for line in lines if line]

    def save_chart(self, path: Path | str) -> None:
        """Draws the first metric against calls, tokens and seconds, as SVG or PNG by the file's ending.

        Raises `InputError` where it cannot be written and `MissingExtraError` without matplotlib.
        """
        from mmrerank.evaluation.compare import charts

        target = Path(path)
        points = {n: m for n, m in self.methods.items() if m.scores}
        name = headline(list(next(iter(points.values())).scores.metrics))[0]  # type: ignore[union-attr]
        values = {n: rounded(values_of(m.scores))[name] for n, m in points.items() if m.scores}
        drawn = charts.frontier(
            {n: (v, points[n].usage) for n, v in values.items()},
            name,
            queries=len(self.task.queries),
            ceiling=rounded(values_of(self.ceiling))[name] if self.ceiling else None,
            format="png" if target.suffix == ".png" else "svg",
        )
        try:
            writing.write(target, drawn)
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error.strerror or error}") from error


def _metrics(scores: Scores | None) -> Mapping[str, Measured]:
    return scores.metrics if scores else {}


def _number(text: str, value: float | None = None) -> Cell:
    return Cell(text=text, value=value, numeric=True)


def _marked(row: Mapping[str, Any], name: str) -> Cell:
    """A figure, with a mark where lists are too short for it."""
    return _number(f"{row[name]:.3f}{MARK if name in row.get('short', {}) else ''}", row[name])


def _costs(row: Mapping[str, Any]) -> list[Cell]:
    usage = row["usage"]
    return [
        _number(f"{usage['calls']:,}", usage["calls"]),
        _number(f"{usage['input_tokens'] / 1000:,.0f}k", usage["input_tokens"]),
        _number(f"{usage['output_tokens'] / 1000:,.0f}k", usage["output_tokens"]),
        _number(f"{usage['seconds']:,.0f}", usage["seconds"]),
        _number(f"{row['failed']}/{row['repaired']}"),
    ]


def _word(gain: Mapping[str, Any], lower_is_better: bool) -> str:
    if not gain:
        return ""
    low, high = gain["ci"]
    if low <= 0 <= high:
        return "unclear"
    return "better" if (low > 0) != lower_is_better else "worse"


def _gain_text(gain: Mapping[str, Any]) -> str:
    return f"{gain['value']:+.3f} [{gain['ci'][0]:+.3f}, {gain['ci'][1]:+.3f}]" if gain else ""


def forecast_lines(forecast: Mapping[str, Forecast]) -> list[str]:
    """What is left, a line for each method."""
    return [f"{label}: {one}" for label, one in forecast.items()]
