"""A comparison in pictures, as SVG or PNG: differences, queries, groups, and quality against cost.

Colours are Okabe and Ito's, distinct with any colour vision; shapes repeat them. Needs matplotlib,
which is loaded when a picture is drawn.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmrerank.errors import MissingExtraError, UsageError
from mmrerank.evaluation.compare.comparison import Comparison, Verdict
from mmrerank.evaluation.compare.tables import by, heading
from mmrerank.terminal import one_line
from mmrerank.types import Usage

Format = Literal["svg", "png"]
FORMATS: tuple[Format, ...] = ("svg", "png")
BLUE, RED, GREY, INK = "#0072B2", "#D55E00", "#767676", "#23272e"
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = ("o", "s", "^", "D", "v", "P", "X")
_VERDICTS: dict[Verdict, tuple[str, str]] = {
    "better": (BLUE, "^"), "worse": (RED, "v"), "not different": (GREY, "o"),
    "judgements failed": (GREY, "X"),
}  # fmt: skip
_NAME = 34  # characters of a name that are shown
_DPI = 130
COSTS: dict[str, Callable[[Usage], float]] = {
    "model calls a query": lambda u: u.calls,
    "tokens a query": lambda u: u.input_tokens + u.output_tokens,
    "seconds a query": lambda u: u.seconds,
}
"""What quality is drawn against."""


def differences(comparison: Comparison, *, format: Format = "svg") -> bytes:
    """Each run's difference from the baseline with its interval; a panel for each metric.

    Shape and colour are the verdict: an interval knows nothing of the correction for many.
    """
    names = [r for r in comparison.runs if r != comparison.baseline]
    across = min(3, len(comparison.metrics))
    down = -(-len(comparison.metrics) // across)
    height = 1.5 + 0.34 * len(names)
    figure = _figure(2.2 + 2.9 * across, down * height)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for axes, metric in zip(panels, comparison.metrics, strict=False):
        for place, run in enumerate(names):
            one = comparison.difference(metric, run)
            assert one is not None  # every challenger is compared with the baseline
            colour, shape = _VERDICTS[one.verdict]
            axes.plot(one.interval, (place, place), color=colour, linewidth=2)
            axes.plot(one.value, place, shape, color=colour, markersize=8)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        _ticks(axes, names)
        _title(axes, heading(comparison, metric))
        axes.grid(axis="x", color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.locator_params(axis="x", nbins=5)
    for axes in panels[len(comparison.metrics) :]:
        axes.set_visible(False)
    _below(figure, f"difference from {_short(comparison.baseline)}")
    _legend(figure, [(name, *look) for name, look in _VERDICTS.items()])
    return _saved(figure, format)


def queries(comparison: Comparison, metric: str, run: str, *, format: Format = "svg") -> bytes:
    """By query, how much better or worse ``run`` is than the baseline: bars, the best first."""
    gains = sorted(comparison.gains(metric, run).values(), reverse=True)
    figure = _figure(7.0, 3.0)
    axes = figure.subplots()
    # an area, not bars: a thousand bars narrower than a pixel show their gaps
    edges = range(len(gains) + 1)
    better, worse = ([max(g, 0.0) for g in gains], [min(g, 0.0) for g in gains])
    axes.stairs(better, edges, fill=True, color=BLUE, linewidth=0)
    axes.stairs(worse, edges, fill=True, color=RED, linewidth=0)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlim(0, len(gains))
    found = comparison.difference(metric, run)
    assert found is not None
    axes.xaxis.get_major_locator().set_params(integer=True)
    looks = [
        (f"better on {found.wins}", BLUE, "s"),
        (f"worse on {found.losses}", RED, "s"),
        (f"equal on {found.ties}", GREY, "_"),
    ]
    _legend(figure, looks)
    _title(axes, f"{_short(run)} against {_short(comparison.baseline)}")
    axes.set_xlabel(f"{len(gains)} queries, the best for {_short(run)} first", parse_math=False)
    axes.set_ylabel(f"{metric}, better by", parse_math=False)
    return _saved(figure, format)


def groups(comparison: Comparison, metric: str, grouping: str, *, format: Format = "svg") -> bytes:
    """Each run's mean in each group of ``grouping``: one row a group, one sign a run.

    Raises `UsageError` for a grouping that the comparison lacks.
    """
    if grouping not in comparison.groupings:
        known = ", ".join(comparison.groupings) or "none"
        raise UsageError(f"the comparison has the groupings {known}, not {grouping!r}")
    chosen = [g for g in comparison.groups if (g.grouping, g.metric) == (grouping, metric)]
    names = list(dict.fromkeys(g.name for g in chosen))
    counts = {g.name: g.queries for g in chosen}
    figure = _figure(7.6, 1.5 + 0.42 * len(names) + 0.22 * -(-len(comparison.runs) // 3))
    axes = figure.subplots()
    looks = []
    for number, run in enumerate(comparison.runs):
        colour = PALETTE[number % len(PALETTE)]
        shape = SHAPES[number % len(SHAPES)]
        values = [next(g.value for g in chosen if (g.name, g.run) == (n, run)) for n in names]
        # runs stand a little above one another, so that equal values can be seen
        step = 0.5 / max(1, len(comparison.runs) - 1)
        places = [n - 0.25 + step * number for n in range(len(names))]
        axes.plot(values, places, shape, color=colour, markersize=7, alpha=0.9)
        looks.append((_short(run), colour, shape))
    for place in range(1, len(names)):
        axes.axhline(place - 0.5, color="#e4e4e4", linewidth=0.7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    _ticks(axes, [f"{_short(n, 26)}  ({counts[n]})" for n in names])
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    _title(axes, f"{heading(comparison, metric)} {by(grouping)} (in brackets: how many)")
    _legend(figure, looks)
    return _saved(figure, format)


def cost(comparison: Comparison, usage: Mapping[str, Usage], metric: str, *, format: Format = "svg") -> bytes:
    """Quality against calls, tokens and seconds a query; the line joins runs that none beats at less cost.

    Runs without usage are left out, and so is a cost that no run has. Raises `UsageError` when that leaves
    nothing.
    """
    runs = [r for r in comparison.runs if r in usage]
    kinds = {k: of for k, of in COSTS.items() if any(of(usage[r]) for r in runs)}
    if not kinds:
        raise UsageError("no run has a cost to draw: give calls, tokens or seconds")
    values = [comparison.value(metric, r).value for r in runs]
    figure = _figure(1.0 + 3.7 * len(kinds), 4.0)
    lower = metric in comparison.lower_is_better
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, (kind, of) in zip(panels, kinds.items(), strict=True):
        costs = [of(usage[r]) / comparison.queries for r in runs]
        _scale(axes, costs)
        front = pareto(costs, [-v if lower else v for v in values])
        axes.step(
            [costs[n] for n in front], [values[n] for n in front], where="post",
            color="#9a9a9a", linewidth=1.2, linestyle="--", zorder=1,
        )  # fmt: skip
        for n, run in enumerate(runs):
            axes.plot(
                costs[n], values[n], SHAPES[comparison.runs.index(run) % len(SHAPES)],
                color=PALETTE[comparison.runs.index(run) % len(PALETTE)], markersize=9, zorder=3,
            )  # fmt: skip
        axes.margins(y=0.18)
        if lower:
            axes.invert_yaxis()  # up is better in every picture
        axes.grid(color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel(kind)
    _below(figure, "dashed: no other run is better at the same cost or less")
    panels[0].set_ylabel(heading(comparison, metric), parse_math=False)
    looks = [
        (_short(r), PALETTE[n % len(PALETTE)], SHAPES[n % len(SHAPES)])
        for n, r in enumerate(comparison.runs)
        if r in usage
    ]
    _legend(figure, looks)
    return _saved(figure, format)


def frontier(
    points: Mapping[str, tuple[float, Usage]],
    metric: str,
    *,
    queries: int,
    ceiling: float | None = None,
    format: Format = "svg",
) -> bytes:
    """Many methods' quality against calls, tokens and seconds a query; names stand at the points.

    The line joins those that none beats at less cost. Raises `UsageError` when nothing has a cost.
    """
    names = list(points)
    kinds = {k: of for k, of in COSTS.items() if any(of(u) for _, u in points.values())}
    if not kinds:
        raise UsageError("no method has a cost to draw: none of them asked a model")
    values = [points[n][0] for n in names]
    figure = _figure(5.2 * len(kinds), 5.6)
    panels = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    for axes, (kind, of) in zip(panels, kinds.items(), strict=True):
        costs = [of(points[n][1]) / queries for n in names]
        _scale(axes, costs)
        front = pareto(costs, values)
        axes.step(
            [costs[n] for n in front], [values[n] for n in front], where="post",
            color="#9a9a9a", linewidth=1.2, linestyle="--", zorder=1,
        )  # fmt: skip
        for n, name in enumerate(names):
            best = n in front
            axes.plot(costs[n], values[n], "o", color=BLUE if best else GREY, markersize=6, zorder=3)
            # neighbours at one cost are labelled above and below
            up = sum(costs[m] == costs[n] and values[m] < values[n] for m in range(len(names))) % 2
            axes.annotate(
                _short(name), (costs[n], values[n]), xytext=(5, 4 if up else -9),
                textcoords="offset points", fontsize=7.5, color=BLUE if best else INK,
            ).set_parse_math(False)  # fmt: skip
        if ceiling is not None:
            axes.axhline(ceiling, color=INK, linewidth=0.8, linestyle=":")
        axes.margins(y=0.1)
        axes.grid(color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel(kind)
    note = "dashed: no other method is better at the same cost or less"
    _below(figure, note if ceiling is None else f"{note}; dotted: the best order of the candidates")
    panels[0].set_ylabel(metric, parse_math=False)
    return _saved(figure, format)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One drawn picture. ``name`` can be a file's, ``caption`` says what is to be seen."""

    name: str
    caption: str
    data: bytes


def draw(
    comparison: Comparison, usage: Mapping[str, Usage] | None = None, *, format: Format = "svg"
) -> tuple[Picture, ...]:
    """Every picture that the comparison gives, of its first metric where a picture shows only one."""
    metric, base = comparison.metrics[0], comparison.baseline
    drawn = [
        Picture(
            name="differences",
            caption=f"Differences from {base} with their intervals; shape and colour are the verdict.",
            data=differences(comparison, format=format),
        )
    ]
    for number, run in enumerate(comparison.challengers, start=1):
        drawn.append(
            Picture(
                name=f"queries-{number}",
                caption=f"{metric}: how much better or worse {run} is than {base}, query by query.",
                data=queries(comparison, metric, run, format=format),
            )
        )
    for number, grouping in enumerate(comparison.groupings, start=1):
        drawn.append(
            Picture(
                name=f"groups-{number}",
                caption=f"{metric} {by(grouping)}.",
                data=groups(comparison, metric, grouping, format=format),
            )
        )
    if any(of(u) for r, u in (usage or {}).items() if r in comparison.runs for of in COSTS.values()):
        drawn.append(
            Picture(
                name="cost",
                caption=f"{metric} against what it cost.",
                data=cost(comparison, usage or {}, metric, format=format),
            )
        )
    return tuple(drawn)


def pareto(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """The places of points that no other beats: none is better at the same cost or less. Cheapest first."""
    front: list[int] = []
    for n in sorted(range(len(costs)), key=lambda n: (costs[n], -values[n])):
        if not front or values[n] > values[front[-1]]:
            front.append(n)
    return front


def _scale(axes: Any, costs: Sequence[float]) -> None:
    """Logarithmic where costs differ by more than a factor of 30; a run without any stands at zero."""
    least, most = min(c for c in costs if c > 0), max(costs)
    if most <= 30 * least:
        axes.set_xlim(-0.06 * most, 1.1 * most)
    elif min(costs) > 0:
        axes.set_xscale("log")
        axes.set_xlim(least / 2, 2 * most)
    else:
        axes.set_xscale("symlog", linthresh=least, linscale=0.5)
        axes.set_xlim(-0.3 * least, 2 * most)
    axes.xaxis.set_major_formatter(lambda cost, _: _plain(cost))


def _plain(cost: float) -> str:
    """Thousands as ``k``, so that neighbouring numbers do not touch."""
    return f"{cost / 1000:g}k" if abs(cost) >= 1000 else f"{cost:g}"


def _figure(width: float, height: float) -> Any:
    """An empty figure of ``width`` by ``height`` inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError('pictures are drawn by matplotlib; pip install "mmrerank[eval]"') from None
    return Figure(figsize=(width, height), layout="constrained")


def _ticks(axes: Any, names: Sequence[str]) -> None:
    # a dollar sign in a name is no formula
    axes.set_yticks(range(len(names)), [_short(n) for n in names], parse_math=False)


def _title(axes: Any, text: str) -> None:
    axes.set_title(_short(text, 90), fontsize=11, color=INK, loc="left", parse_math=False)


def _below(figure: Any, text: str) -> None:
    figure.supxlabel(text, fontsize=10, color=INK).set_parse_math(False)


def _legend(figure: Any, looks: Sequence[tuple[str, str, str]]) -> None:
    """Names with colour and shape, above everything."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker=shape, color=colour, markersize=7) for _, colour, shape in looks
    ]
    legend = figure.legend(
        handles, [name for name, _, _ in looks], loc="outside upper center",
        ncols=min(3, len(looks)), frameon=False, fontsize=9, handletextpad=0.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _short(name: str, limit: int = _NAME) -> str:
    """``name`` on one line, its middle left out where it is long."""
    name = one_line(name)
    half = (limit - 1) // 2
    return name if len(name) <= limit else f"{name[:half]}…{name[-half:]}"


def _saved(figure: Any, format: Format) -> bytes:
    """The file's bytes: the same for the same figures, with no date in it."""
    import matplotlib

    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9, colors=INK)
    file = io.BytesIO()
    settings = {"svg.hashsalt": "mmrerank", "svg.fonttype": "path"}
    metadata = {"Date": None} if format == "svg" else {"Software": None}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # a letter that the font lacks is a box in the picture, and no reason to stop
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format=format, dpi=_DPI, metadata=metadata, facecolor="white")
    return file.getvalue()
