"""``mmrerank eval demo``: how good a method is, on a picture-book world that nothing was trained on."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from mmrerank.cli._benchmarks import register
from mmrerank.cli.console import Output, emit, guarded, progress, say, table_console, working
from mmrerank.cli.options import (
    BudgetFlag,
    CacheFlag,
    ChatOptionsFlag,
    OutputFlag,
    PriceFlag,
    RecordFlag,
    TotalFlag,
    surroundings,
)
from mmrerank.errors import DEGRADED_EXIT_CODE, InputError, MissingExtraError, UsageError

EXAMPLE = "mmrerank eval demo --seed 5 --methods none,cotrr,pointwise"

group = typer.Typer(
    help="Measure methods against a benchmark's truth.", no_args_is_help=True, rich_markup_mode=None
)


@guarded
def demo(
    seed: Annotated[
        int,
        typer.Option("--seed", metavar="N", min=0, help="Which world; any is new to the models."),
    ] = 0,
    scenes: Annotated[
        int, typer.Option("--scenes", metavar="N", min=1, help="How many pictures are drawn.")
    ] = 2000,
    queries: Annotated[
        int, typer.Option("--queries", metavar="N", min=1, help="How many queries are asked.")
    ] = 200,
    candidates: Annotated[
        int,
        typer.Option(
            "--candidates",
            metavar="N",
            min=1,
            help="How many of the embedding order are reranked.",
        ),
    ] = 20,
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            metavar="LIST",
            help="Methods with commas between, such as cotrr,prp(schedule=heap;top=5), or all.",
        ),
    ] = "none,cotrr",
    chat: Annotated[
        str,
        typer.Option(
            "--chat",
            metavar="SPEC",
            envvar="MMRERANK_CHAT",
            help="The language model that judges.",
        ),
    ] = "bundled",
    chat_option: ChatOptionsFlag = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            "--runs",
            metavar="DIR",
            show_default=False,
            help="Also write runs, qrels and provenance here, and keep the journals here.",
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over instead of going on from the journals.")
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Judge queries again of which a judgement failed."),
    ] = False,
    forecast: Annotated[
        int | None,
        typer.Option(
            "--forecast",
            metavar="N",
            min=0,
            show_default=False,
            help="Judge N queries more of each method (0: none), say what the rest takes, and stop.",
        ),
    ] = None,
    price: PriceFlag = None,
    cache: CacheFlag = None,
    record: RecordFlag = None,
    budget: BudgetFlag = None,
    total_budget: TotalFlag = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture",
            metavar="FILE.svg|png",
            show_default=False,
            help="Draw quality against calls, tokens and seconds.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            show_default=False,
            help="With --run: a world of `mmrerank demo export`, instead of drawing one.",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="FILE", show_default=False, help="Score this run over --data."
        ),
    ] = None,
    output: OutputFlag = Output.text,
) -> None:
    """Measure methods on a new picture-book world with graded truth.

    Finished queries are kept in journals (below ./runs/eval, or in the folder of --runs): after a kill, the
    same command goes on from there and gives the figures of one uninterrupted run. Where a method judges
    images, it is also asked 50 searches that nothing meets; the last line says what these cost.
    """
    from mmrerank.evaluation.experiment.forecast import Price
    from mmrerank.picturebook.benchmark import evaluate_demo, journal_folder

    if data is not None or run is not None:
        _score(data, run, output)
        return
    if picture is not None:
        _check_picture(picture)
    cost = None if price is None else Price.parse(price)
    around = surroundings(
        cache, record, budget, total_budget, price, chat=chat, chat_option=chat_option
    )
    stage = ""

    def step(name: str, done: int, total: int) -> None:
        nonlocal stage
        if name != stage:
            stage = name
            say(f"{name} ...")
        tell(done, total)

    with working(), progress("evaluating") as tell:
        body = evaluate_demo(
            seed=seed,
            scenes=scenes,
            queries=queries,
            candidates=candidates,
            methods=[m.strip() for m in methods.split(",") if m.strip()],
            chat=chat,
            runs=runs,
            journals=runs
            or journal_folder(
                seed=seed,
                scenes=scenes,
                queries=queries,
                candidates=candidates,
                chat=chat,
                around=around,
            ),
            fresh=fresh,
            retry_failed=retry_failed,
            stop_after=forecast,
            price=cost,
            around=around,
            progress=step,
            say=say,
        )
    if output is Output.json:
        emit(body)
    elif "forecast" in body:
        _show_forecast(body["forecast"])
    else:
        _show(body)
    if "forecast" in body:
        return
    if runs is not None:
        say(f"runs and qrels in {runs}")
    # the figures first: a picture that cannot be written must not cost them
    if picture is not None:
        with working():
            _draw(picture, body)
    if any(row["queries_degraded"] for row in body["methods"].values()):
        raise typer.Exit(DEGRADED_EXIT_CODE)


def _score(data: Path | None, run: Path | None, output: Output) -> None:
    from mmrerank.cli._scores import show
    from mmrerank.evaluation.tasks import score_files

    if data is None or run is None:
        raise UsageError(
            "--data and --run go together: a world that was exported, and a run over it"
        )
    with working():
        scores = score_files("demo", data, [run])
    if output is Output.json:
        emit(scores.to_dict())
    else:
        show(scores, title=f"demo {data}")


def _check_picture(file: Path) -> None:
    """Raises what can be told before anything is judged."""
    if file.suffix not in (".svg", ".png"):
        raise UsageError(f"a picture is a .svg or .png file, not {file.name!r}")
    if find_spec("matplotlib") is None:
        raise MissingExtraError('pictures are drawn by matplotlib; pip install "mmrerank[eval]"')


def _draw(file: Path, body: dict[str, Any]) -> None:
    from mmrerank.evaluation.compare import charts as pictures
    from mmrerank.types import Usage

    points = {
        name: (row["nDCG@10"], Usage(**row["usage"])) for name, row in body["methods"].items()
    }
    format: pictures.Format = "png" if file.suffix == ".png" else "svg"
    drawn = pictures.frontier(
        points,
        "nDCG@10",
        queries=body["queries"],
        ceiling=body["ceiling"]["nDCG@10"],
        format=format,
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(drawn)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror or error}") from error
    say(f"picture in {file}")


def _show_forecast(rows: dict[str, dict[str, Any]]) -> None:
    from mmrerank.evaluation.experiment.forecast import Forecast

    for name, row in rows.items():
        typer.echo(f"{name}: {Forecast(**row)}")


def _show(body: dict[str, Any]) -> None:
    from rich.table import Table

    console = table_console()
    console.print(
        f"{body['queries']} queries over {body['scenes']} pictures, world {body['seed']}; "
        f"the first {body['candidates']} candidates are reranked"
    )
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name in _COLUMNS:
        table.add_column(
            name, justify="left" if name in ("method", "than none") else "right", no_wrap=True
        )
    table.add_row("(random)", *_bound(body["random"]))
    for name, row in body["methods"].items():
        table.add_row(
            name,
            f"{row['nDCG@10']:.3f}",
            "" if name == "none" else _gain(row),
            "" if name == "none" else _against_none(row),
            f"{row['P@1']:.3f}",
            f"{row['R@20']:.3f}",
            f"{row['usage']['calls']:,}",
            f"{row['usage']['input_tokens'] / 1000:,.0f}k",
            f"{row['usage']['output_tokens'] / 1000:,.0f}k",
            f"{row['usage']['seconds']:,.0f}",
            f"{row['failed']}/{row['repaired']}",
        )
    if body["sum_of_verdicts"]:
        row = body["sum_of_verdicts"]
        table.add_row(
            "(sum of verdicts)", f"{row['nDCG@10']:.3f}", _gain(row), _against_none(row),
            f"{row['P@1']:.3f}",
        )  # fmt: skip
    table.add_row("(ceiling)", *_bound(body["ceiling"]))
    console.print(table)
    console.print("calls, tokens and seconds are those of all queries together", style="dim")
    for name, row in body["methods"].items():
        if row["queries_degraded"]:
            console.print(
                f"{name}: judgements failed in {row['queries_degraded']} of {body['queries']} queries; "
                "there the first-stage order stands (--retry-failed asks again)"
            )
    if body["verdicts"]:
        kinds = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in ("verdicts right (balanced)", "seen", "new combinations"):
            kinds.add_column(name, justify="left" if name.startswith("v") else "right")
        for kind, row in body["verdicts"].items():
            kinds.add_row(kind, _share(row["seen"]), _share(row["unseen"]))
        apart = body["deconstruction"]
        # of wordings, not of combinations
        kinds.add_row(
            "taken apart exactly (new wordings)", _share(apart["seen"]), _share(apart["unseen"])
        )
        console.print(kinds)
    if body["no_match"]:
        console.print(
            f"tells 'nothing matches' right: {body['no_match']['balanced_accuracy']:.3f} (balanced; "
            f"{body['no_match']['usage']['calls']:,} calls more)"
        )


_COLUMNS = (
    "method", "nDCG@10", "gain, 95% interval", "than none", "P@1", "R@20", "calls", "in", "out", "s",
    "fail/rep",
)  # fmt: skip


def _against_none(row: dict[str, Any]) -> str:
    low, high = row["gain"]["nDCG@10"]["ci"]
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def _gain(row: dict[str, Any]) -> str:
    gain = row["gain"]["nDCG@10"]
    return f"{gain['value']:+.3f} [{gain['ci'][0]:+.3f}, {gain['ci'][1]:+.3f}]"


def _bound(row: dict[str, float]) -> tuple[str, str, str, str]:
    return f"{row['nDCG@10']:.3f}", "", "", f"{row['P@1']:.3f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


register(group)
group.command("demo", epilog=f"\b\nExample:\n  {EXAMPLE}")(demo)


COMMAND = group
