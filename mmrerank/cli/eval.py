"""Measure methods against a benchmark's truth, check its files, score a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from mmrerank import discovery
from mmrerank.cli._benchmark_options import one_of_each, own_example, own_options, parameter
from mmrerank.cli.console import Output, emit, progress, say, table_console, working
from mmrerank.cli.lazy import LazyGroup, as_command, example
from mmrerank.cli.options import (
    BudgetFlag,
    CacheFlag,
    ChatFlag,
    ChatOptionsFlag,
    OptionsFlag,
    OutputFlag,
    PerQueryFlag,
    PriceFlag,
    PromptsFlag,
    RecordFlag,
    TotalFlag,
    TrustFlag,
    pairs,
    surroundings,
    trusting,
)
from mmrerank.errors import DEGRADED_EXIT_CODE, MissingExtraError, UsageError

if TYPE_CHECKING:
    from mmrerank.evaluation.experiment.carry_out import Experiment
    from mmrerank.evaluation.experiment.outcome import Evaluation
    from mmrerank.evaluation.experiment.recipe import Recipe

EXAMPLE = """mmrerank eval cirr --data DATA/cirr --run cirr.trec --output json
mmrerank eval circo --data DATA/circo --index circo --methods none,cotrr,pointwise --chat SPEC"""


class Flags:
    """The flags that every benchmark has."""

    data: Annotated[Path | None, typer.Option(
        "--data", metavar="DIR", show_default=False, help="The benchmark's own files."
    )] = None  # fmt: skip
    run: Annotated[list[Path] | None, typer.Option(
        "--run", metavar="FILE", show_default=False,
        help="What is scored: a TREC run, raw scores (.jsonl), or a prediction or submission "
        "file of the benchmark; .gz too; may be repeated.",
    )] = None  # fmt: skip
    split: Annotated[
        str | None, typer.Option("--split", metavar="S", show_default=False, help="Which split.")
    ] = None
    set_: Annotated[list[str] | None, typer.Option(
        "--set", metavar="NAME=VALUE", show_default=False,
        help="An option of the benchmark (`mmrerank list benchmarks`); may be repeated.",
    )] = None  # fmt: skip
    index: Annotated[str | None, typer.Option(
        "--index", metavar="X", show_default=False,
        help="Make the first stage with this index.",
    )] = None  # fmt: skip
    shards: Annotated[Path | None, typer.Option(
        "--shards", metavar="DIR", show_default=False,
        help="Make the first stage with INQUIRE's published embedding shards.",
    )] = None  # fmt: skip
    embedder: Annotated[str | None, typer.Option(
        "--embedder", metavar="SPEC", show_default=False,
        help="What embeds queries (default: the index's own); without --index their candidates too.",
    )] = None  # fmt: skip
    trust_remote_code: TrustFlag = False
    text_weight: Annotated[float | None, typer.Option(
        "--text-weight", metavar="W", show_default=False,
        help="The share of the words in a query of words and pictures, 0 to 1; an option of the embedder.",
    )] = None  # fmt: skip
    precision: Annotated[str | None, typer.Option(
        "--precision", metavar="P", show_default=False,
        help="What the embedder computes in: float32, bfloat16 or float16.",
    )] = None  # fmt: skip
    images: Annotated[Path | None, typer.Option(
        "--images", metavar="DIR", show_default=False,
        help="Where the pictures are, to be asked with or to be reranked.",
    )] = None  # fmt: skip
    methods: Annotated[str | None, typer.Option(
        "--methods", metavar="LIST", show_default=False,
        help="Compare methods, with commas between, such as cotrr,prp(schedule=heap;top=5), or all.",
    )] = None  # fmt: skip
    rerank: Annotated[str | None, typer.Option(
        "--rerank", metavar="METHOD", show_default=False,
        help="Rerank the first stage, or the --run, by this method alone.",
    )] = None  # fmt: skip
    option: OptionsFlag = None
    chat: ChatFlag = None
    chat_option: ChatOptionsFlag = None
    prompts: PromptsFlag = None
    candidates: Annotated[int | None, typer.Option(
        "--candidates", metavar="N", min=1, show_default=False,
        help="How many of each list are reranked (default: 20).",
    )] = None  # fmt: skip
    depth: Annotated[int | None, typer.Option(
        "--depth", metavar="N", min=1, show_default=False,
        help="How long the first stage's lists are (default: as the benchmark looks).",
    )] = None  # fmt: skip
    runs: Annotated[Path | None, typer.Option(
        "--runs", metavar="DIR", show_default=False,
        help="Where runs, verdicts, provenance and journals go (default: ./runs/eval/...).",
    )] = None  # fmt: skip
    config: Annotated[Path | None, typer.Option(
        "--config", metavar="FILE.yaml", show_default=False,
        help="A recipe with any of these settings; flags go over it.",
    )] = None  # fmt: skip
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over instead of going on from the journal.")
    ] = False
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Judge queries again of which a judgement failed.")
    ] = False
    forecast: Annotated[int | None, typer.Option(
        "--forecast", metavar="N", min=0, show_default=False,
        help="Judge N queries of each method (0: none), say what the rest takes; only --cache keeps replies.",
    )] = None  # fmt: skip
    price: PriceFlag = None
    cache: CacheFlag = None
    record: RecordFlag = None
    budget: BudgetFlag = None
    total_budget: TotalFlag = None
    picture: Annotated[Path | None, typer.Option(
        "--picture", metavar="FILE.svg|png", show_default=False,
        help="With --methods: draw quality against calls, tokens and seconds.",
    )] = None  # fmt: skip
    submission: Annotated[Path | None, typer.Option(
        "--submission", metavar="DIR", show_default=False,
        help="Write the official submission files of the result here.",
    )] = None  # fmt: skip
    per_query: PerQueryFlag = False
    output: OutputFlag = Output.text


class BenchmarkGroup(LazyGroup):
    """A command for each benchmark; none is imported before it runs."""

    kind = "benchmark"

    def _loaded(self, name: str) -> Any:
        plugin = self._places[name]
        lines = own_example(plugin) or (
            f"mmrerank eval {name} --data DATA/{name} --run {name}.trec --output json\n"
            f"mmrerank eval {name} --data DATA/{name} --index {name} --methods cotrr --chat SPEC"
        )
        return as_command(_command(name, plugin), name, epilog=example(lines))


def _command(name: str, plugin: str) -> Callable[..., None]:
    """A function with the flags of `Flags` and a flag for each option of the benchmark."""
    hints = get_type_hints(Flags, include_extras=True)
    taken = {n.rstrip("_") for n in hints} | {"help"}
    own = [o for o in own_options(plugin) if o.name not in taken]
    parameters = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=vars(Flags)[n], annotation=hint)
        for n, hint in hints.items()
    ]
    parameters[3:3] = [parameter(o) for o in own]

    def evaluate(**flags: Any) -> None:
        options = {o.name: flags.pop(o.name) for o in own}
        _evaluate(name, {k: v for k, v in options.items() if v is not None}, **flags)

    evaluate.__doc__ = f"""{discovery.about("benchmark", plugin)}

    Without a run or an index the files are checked and counted. With --run, a run is scored, which needs no
    pictures. With --index, a first stage is made; --methods compares methods over its head, or over that of
    a run, and --rerank takes one; a killed command goes on where it was. "value" takes a query without an
    answer for 0, "value_scored" leaves it out.
    """
    evaluate.__annotations__ = {p.name: p.annotation for p in parameters}
    evaluate.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return evaluate


def _evaluate(name: str, own: dict[str, Any], *, output: Output, picture: Path | None, **flags: Any) -> None:
    from mmrerank.evaluation.experiment.recipe import read_recipe

    if picture is not None:
        _check_picture(picture)
    if flags["rerank"] and flags["methods"]:
        raise UsageError("give --methods, or --rerank for one method alone, not both")
    named = ("data", "split", "index", "shards", "embedder", "text_weight", "precision", "images", "methods",
             "rerank", "chat", "candidates", "depth", "runs", "prompts")  # fmt: skip
    recipe = read_recipe(
        name,
        flags["config"],
        set=one_of_each(pairs(flags["set_"], "--set"), own),
        options=pairs(flags["option"], "-o") or None,
        chat_options=pairs(flags["chat_option"], "--chat-option") or None,
        **{n: flags[n] for n in named},
    )
    with working(), progress("evaluating") as tell:
        found = _experiment(name, recipe, flags, _stages(tell)).carry_out()
    for path in found.submission:
        say(f"wrote {path}")
    if output is Output.json:
        emit(found.to_dict())
    else:
        for line in found.per_query_lines:
            typer.echo(line)
        _print(found)
    if found.forecast:
        return
    if found.side_by_side and recipe.runs:
        say(f"runs in {recipe.runs}")
    # the figures first: a picture that cannot be written must not cost them
    if picture is not None:
        with working():
            found.save_chart(picture)
        say(f"picture in {picture}")
    if found.degraded:
        raise typer.Exit(DEGRADED_EXIT_CODE)


def _experiment(
    name: str, recipe: Recipe, flags: dict[str, Any], step: Callable[[str, int, int], None]
) -> Experiment:
    from mmrerank.budget import Price
    from mmrerank.cli.options import _values
    from mmrerank.evaluation.experiment.carry_out import Experiment
    from mmrerank.evaluation.tasks import benchmark_of
    from mmrerank.rerank.methods import MethodSpec, method_specs, parse_method, split_methods

    specs: list[MethodSpec] = []
    made = not recipe.data and not flags["run"]
    default = benchmark_of(name).METHODS if made and recipe.rerank == "none" else ()
    if wanted := split_methods(recipe.methods) or default:
        specs = method_specs(["none", *wanted])
    elif recipe.rerank != "none":
        method, options = parse_method(recipe.rerank)
        given = {**options, **recipe.options}
        specs = [MethodSpec(name=method, given=given, plain_files=not options)]
    limits = ("cache", "record", "budget", "total_budget", "price")
    trusted = trusting(recipe.embedder, flags["trust_remote_code"])
    return Experiment(
        benchmark=name, data=Path(recipe.data) if recipe.data else None, split=recipe.split,
        options=recipe.set, run=flags["run"] or (), index=recipe.index, shards=recipe.shards,
        # a run that is given needs no first stage
        embedder="" if flags["run"] else recipe.embedder,
        embedder_options={} if flags["run"] else {**recipe.embedder_options, **trusted},
        images=Path(recipe.images) if recipe.images else None, depth=recipe.depth,
        methods=specs, side_by_side=bool(wanted), candidates=recipe.candidates, chat=recipe.chat,
        chat_options=lambda spec: _values(spec, recipe.chat_options) if recipe.chat_options else {},
        around=surroundings(*(flags[n] for n in limits), chat=recipe.chat, chat_option=None,
                            prompts=recipe.prompts),
        runs=Path(recipe.runs) if recipe.runs else None, fresh=flags["fresh"],
        retry_failed=flags["retry_failed"], forecast=flags["forecast"],
        price=None if flags["price"] is None else Price.parse(flags["price"]),
        submission=flags["submission"], per_query=flags["per_query"], progress=step, say=say,
    )  # fmt: skip


def _stages(tell: Callable[[int, int | None], None]) -> Callable[[str, int, int], None]:
    """Progress by stage: each new one is a line."""
    stage = ""

    def step(name: str, done: int, total: int) -> None:
        nonlocal stage
        if name != stage:
            stage = name
            say(f"{name} ...")
        tell(done, total)

    return step


def _check_picture(file: Path) -> None:
    """Raises what can be reported before anything is judged."""
    if file.suffix not in (".svg", ".png"):
        raise UsageError(f"a picture is a .svg or .png file, not {file.name!r}")
    if find_spec("matplotlib") is None:
        raise MissingExtraError('pictures are drawn by matplotlib; pip install "mmrerank[eval]"')


def _print(found: Evaluation) -> None:
    from mmrerank.evaluation.compare.rendering import terminal
    from mmrerank.evaluation.experiment.outcome import forecast_lines

    if found.forecast:
        for line in forecast_lines(found.forecast):
            typer.echo(line)
        return
    console = table_console()
    tables = found.tables
    for table in tables:
        console.print(terminal(table))
    beside = {note for table in tables for note in table.notes}
    for warning in found.warnings:
        if warning not in beside:
            say(f"warning: {warning}")
    if not found.answers:
        say("score a run with --run FILE, or make one with --index X")


COMMAND = typer.Typer(
    cls=BenchmarkGroup,
    help="Measure methods against a benchmark's truth.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@COMMAND.callback()
def _group() -> None:
    """Measure methods against a benchmark's truth."""
