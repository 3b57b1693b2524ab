"""What an evaluation found: figures of a run, or of methods beside each other, with gains and costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmrerank.benchmark import Answer, Measured, Scores, Task
from mmrerank.errors import InputError
from mmrerank.evaluation.compare.intervals import interval_of_parts
from mmrerank.evaluation.compare.rendering import Cell, Table
from mmrerank.evaluation.experiment.forecast import Forecast
from mmrerank.evaluation.experiment.published import headline, published_table
from mmrerank.evaluation.score import figure, scores_table
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
        """What all queries cost together, and how many judgements failed."""
        return {
            "usage": dataclasses.asdict(self.usage),
            "failed": sum(r.repairs.failed for r in self.results),
            "repaired": sum(r.repairs.repaired for r in self.results),
            "queries_degraded": sum(r.degraded for r in self.results),
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

    @property
    def warnings(self) -> Sequence[str]:
        """What a reader of the figures must know."""
        if self.scores is not None:
            return self.scores.warnings
        return [*self.task.warnings, *(w for a in self.answers for w in a.warnings)]

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
        return {**self.scores.to_dict(), **self._one_method()}

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
            return {}
        (one,) = self.methods.values()
        body = {"method": one.spec.name, "candidates": self.heading["candidates"], **one.costs}
        if self.ceiling and self.first_stage:
            body["ceiling"] = _values(self.ceiling)
            body["first_stage"] = {"digest": self.first_stage_digest, "metrics": _values(self.first_stage)}
        return {**body, "provenance": dict(self.provenance)}

    def _side_by_side(self) -> dict[str, Any]:
        report = dict(self.report)
        more = report.pop("methods", {})
        return {
            **self.heading,
            "methods": {label: {**self.row(label), **more.get(label, {})} for label in self.methods},
            "ceiling": _rounded(_values(self.ceiling)) if self.ceiling else None,
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
        body: dict[str, Any] = _rounded(_values(one.scores))
        tested = [metrics[n] for n in headline(list(metrics))[:_TESTED]]
        body["ci"] = {m.name: _interval(_filled(m), m) for m in tested}
        base = self.methods["none"].scores if "none" in self.methods else None
        if base is not None:
            body["gain"] = {m.name: _gain(m, base.metrics[m.name]) for m in tested}
        body["by_category"] = self._by_category(tested)
        return {**body, **costs}

    def _by_category(self, metrics: Sequence[Measured]) -> dict[str, Any]:
        members: dict[str, list[str]] = {}
        for query in self.task.qrels:
            if query in self.task.categories:
                members.setdefault(self.task.categories[query], []).append(query)
        tables = {m.name: _filled(m) for m in metrics if {*m.expected} >= {*self.task.qrels}}
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
                    **(_values(one.scores) if one.scores else {}),
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
        before, best = self.first_stage.metrics[name].value, self.ceiling.metrics[name].value
        measured = self.scores.metrics[name]
        return [
            f"{name}: first stage {figure(measured, before)}, best order of its first "
            f"{self.heading['candidates']} {figure(measured, best)}; {one.usage.calls} calls, "
            f"{one.costs['failed']} failed, {one.costs['repaired']} repaired"
        ]

    def _forecast_table(self) -> Table:
        rows = [[Cell(text=label), Cell(text=str(f))] for label, f in self.forecast.items()]
        return Table(title="What is left", columns=["method", "forecast"], rows=rows)

    def _checked_table(self) -> Table:
        images = "" if self.task.gallery is None else f", {len(self.task.gallery)} images"
        where = f"{self.task.benchmark} {self.task.split}"
        private = f"the labels of {self.task.split} are not public"
        return Table(
            title=f"{where}: {len(self.task.queries)} queries{images}; the files are sound",
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
            cells = [Cell(text=label), *(_number(f"{row[n]:.3f}", row[n]) for n in first)]
            for name in gains:
                gain = {} if label == "none" else row["gain"][name]
                lower = bool(scored and scored.metrics[name].lower_is_better)
                cells += [_number(_gain_text(gain)), Cell(text=_word(gain, lower))]
            cells += [_number(f"{row[n]:.3f}", row[n]) for n in others]
            rows.append([*cells, *_costs(row)])
        if report["ceiling"]:
            best = [_number(f"{report['ceiling'][n]:.3f}") for n in first]
            blank = [Cell(text="")] * (2 * len(gains))
            best += [*blank, *(_number(f"{report['ceiling'][n]:.3f}") for n in others)]
            rows.append([Cell(text="(ceiling)"), *best, *[Cell(text="")] * 5])
        own = "".join(f", {k} {v}" for k, v in self._options.items())
        return Table(
            title=f"{self.task.benchmark} {self.task.split}{own}: {report['queries']} queries; the first "
            f"{report['candidates']} candidates are reranked",
            columns=[*columns, *others, "calls", "in", "out", "s", "fail/rep"],
            rows=rows,
            notes=["calls, tokens and seconds are those of all queries together", *self._failures()],
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
        return [
            f"{label}: judgements failed in {n} of {len(one.results)} queries; there the first-stage order "
            "stands (--retry-failed asks again)"
            for label, one in self.methods.items()
            if (n := one.costs["queries_degraded"])
        ]

    def save_chart(self, path: Path | str) -> None:
        """Draws the first metric against calls, tokens and seconds, as SVG or PNG by the file's ending.

        Raises `InputError` where it cannot be written and `MissingExtraError` without matplotlib.
        """
        from mmrerank.evaluation.compare import charts

        target = Path(path)
        points = {n: m for n, m in self.methods.items() if m.scores}
        name = headline(list(next(iter(points.values())).scores.metrics))[0]  # type: ignore[union-attr]
        values = {n: _rounded(_values(m.scores))[name] for n, m in points.items() if m.scores}
        drawn = charts.frontier(
            {n: (v, points[n].usage) for n, v in values.items()},
            name,
            queries=len(self.task.queries),
            ceiling=_rounded(_values(self.ceiling))[name] if self.ceiling else None,
            format="png" if target.suffix == ".png" else "svg",
        )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(drawn)
        except OSError as error:
            raise InputError(f"{target} cannot be written: {error.strerror or error}") from error


def _number(text: str, value: float | None = None) -> Cell:
    return Cell(text=text, value=value, numeric=True)


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


def _values(scores: Scores) -> dict[str, float]:
    return {name: m.value for name, m in scores.metrics.items()}


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(v, 4) for name, v in values.items()}


def _filled(measured: Measured) -> dict[str, float]:
    return {u: measured.values.get(u, measured.absent) for u in measured.expected}


def _interval(values: Mapping[str, float], shape: Measured) -> list[float]:
    """The 95% interval of the mean, parts weighing the same."""
    parts = [list(u) for u in shape.parts.values() if u] or [list(values)]
    if not all(parts):
        return [0.0, 0.0]
    low, high = interval_of_parts([[values[u] for u in p] for p in parts], seed=0, level=0.95)
    return [round(low, 4), round(high, 4)]


def _gain(one: Measured, base: Measured) -> dict[str, Any]:
    values, before = _filled(one), _filled(base)
    gaps = {u: v - before[u] for u, v in values.items()}
    parts = [list(u) for u in one.parts.values() if u] or [list(gaps)]
    means = [sum(gaps[u] for u in p) / len(p) for p in parts if p]
    value = sum(means) / len(means) if means else 0.0
    return {"value": round(value, 4), "ci": _interval(gaps, one)}


def forecast_lines(forecast: Mapping[str, Forecast]) -> list[str]:
    """What is left, a line for each method."""
    return [f"{label}: {one}" for label, one in forecast.items()]
