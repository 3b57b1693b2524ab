"""``mmrerank eval NAME``: one command for each benchmark, all made from one function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrerank import registry
from mmrerank.cli._console import Output, emit, guarded, progress, say, working
from mmrerank.cli._options import ChatFlag, OptionsFlag, OutputFlag, pairs
from mmrerank.errors import DEGRADED_EXIT_CODE, UsageError

if TYPE_CHECKING:
    from mmrerank.evaluate.benchmark import Answer, Task
    from mmrerank.evaluate.runs import Run
    from mmrerank.evaluate.two_stage import Locate


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that ``--config`` may say and flags may override; paths are as given."""

    data: str = ""
    split: str = ""
    gallery: str = ""
    set: dict[str, Any] = field(default_factory=dict)
    index: str = ""
    shards: str = ""
    embedder: str = ""
    images: str = ""
    rerank: str = "none"
    options: dict[str, Any] = field(default_factory=dict)
    chat: str = "bundled"
    candidates: int = 20
    depth: int = 0
    runs: str = ""


def command(name: str) -> Callable[..., None]:
    """The command that reads, checks, carries out and scores the benchmark ``name``."""

    @guarded
    def evaluate(
        data: Annotated[
            Path | None,
            typer.Option(
                "--data", metavar="DIR", show_default=False, help="The benchmark's own files."
            ),
        ] = None,
        run: Annotated[
            list[Path] | None,
            typer.Option(
                "--run", metavar="FILE", show_default=False,
                help="What is scored: a TREC run, raw scores (.jsonl), or a prediction or submission "
                "file of the benchmark; .gz too; may be repeated.",
            ),
        ] = None,
        split: Annotated[
            str | None,
            typer.Option("--split", metavar="S", show_default=False, help="Which split."),
        ] = None,
        gallery: Annotated[
            str | None,
            typer.Option(
                "--gallery", metavar="original|union", show_default=False,
                help="FashionIQ: which garments are searched (default: original).",
            ),
        ] = None,
        set_: Annotated[
            list[str] | None,
            typer.Option(
                "--set", metavar="NAME=VALUE", show_default=False,
                help="An option of the benchmark (`mmrerank list benchmarks`); may be repeated.",
            ),
        ] = None,
        index: Annotated[
            str | None,
            typer.Option(
                "--index", metavar="X", show_default=False,
                help="Make the first stage with this index.",
            ),
        ] = None,
        shards: Annotated[
            Path | None,
            typer.Option(
                "--shards", metavar="DIR", show_default=False,
                help="INQUIRE: make the first stage with published embedding shards.",
            ),
        ] = None,
        embedder: Annotated[
            str | None,
            typer.Option(
                "--embedder", metavar="SPEC", show_default=False,
                help="What embeds queries (default: the index's own); MMEB's candidates too.",
            ),
        ] = None,
        images: Annotated[
            Path | None,
            typer.Option(
                "--images", metavar="DIR", show_default=False,
                help="Where the pictures are, to be asked with or to be reranked.",
            ),
        ] = None,
        rerank: Annotated[
            str | None,
            typer.Option(
                "--rerank", metavar="METHOD", show_default=False,
                help="Rerank the first stage, or the --run, by this method.",
            ),
        ] = None,
        option: OptionsFlag = None,
        chat: ChatFlag = None,
        candidates: Annotated[
            int | None,
            typer.Option(
                "--candidates", metavar="N", min=1, show_default=False,
                help="How many of each list are reranked (default: 20).",
            ),
        ] = None,
        depth: Annotated[
            int | None,
            typer.Option(
                "--depth", metavar="N", min=1, show_default=False,
                help="How long the first stage's lists are (default: as the benchmark looks).",
            ),
        ] = None,
        runs: Annotated[
            Path | None,
            typer.Option(
                "--runs", metavar="DIR", show_default=False,
                help="Where runs, verdicts, provenance and journals go (default: ./runs/eval/...).",
            ),
        ] = None,
        config: Annotated[
            Path | None,
            typer.Option(
                "--config", metavar="FILE.yaml", show_default=False,
                help="A recipe with any of these settings; flags go over it.",
            ),
        ] = None,
        fresh: Annotated[
            bool, typer.Option("--fresh", help="Start over instead of going on from the journal.")
        ] = False,
        forecast: Annotated[
            int | None,
            typer.Option(
                "--forecast", metavar="N", min=0, show_default=False,
                help="Judge N queries more (0: none), say what the rest takes, and stop.",
            ),
        ] = None,
        price: Annotated[
            str | None,
            typer.Option(
                "--price", metavar="IN,OUT", show_default=False,
                help="Money per million tokens, for the forecast.",
            ),
        ] = None,
        submission: Annotated[
            Path | None,
            typer.Option(
                "--submission", metavar="DIR", show_default=False,
                help="Write the official submission files of the result here.",
            ),
        ] = None,
        output: OutputFlag = Output.text,
    ) -> None:  # fmt: skip
        from mmrerank.evaluate import benchmark

        recipe = _recipe(
            name,
            config,
            data=data, split=split, gallery=gallery, set=pairs(set_, "--set") or None, index=index,
            shards=shards, embedder=embedder, images=images, rerank=rerank,
            options=pairs(option, "-o") or None, chat=chat, candidates=candidates, depth=depth, runs=runs,
        )  # fmt: skip
        own = {"gallery": recipe.gallery} if recipe.gallery else {}
        with working():
            place = Path(recipe.data)
            task = benchmark.load_task(
                name, place, split=recipe.split or None, options={**recipe.set, **own}
            )
        first: _First | None = None
        folder = Path(recipe.runs or f"runs/eval/{name}-{task.split}")
        if recipe.index or recipe.shards or (recipe.embedder and not run):
            if run:
                raise UsageError("give --run, or --index to make one, not both")
            first = _first_stage(task, recipe, folder)
            answers = [first.answer(task)]
        else:
            with working():
                files = run or benchmark.own_runs(name, place)
                answers = [benchmark.read_answer(task, path) for path in files]
                if not answers and task.first and recipe.rerank != "none":
                    # the data brings a first stage, such as INQUIRE-Rerank's clip_score
                    answers = [benchmark.Answer(path=str(place), kind="run", rows=task.first)]
        result: dict[str, Any] | None = None
        if recipe.rerank != "none":
            result = _reranked(task, recipe, first, answers, folder, fresh, forecast, price)
            if "forecast" in result:
                _tell_forecast(result, output)
                return
            answers = [benchmark.read_answer(task, folder / f"{recipe.rerank}.trec")]
        if submission is not None:
            with working():
                for path in benchmark.write_submission(task, answers, submission):
                    say(f"wrote {path}")
        _finish(task, answers, result, output, asked=bool(run or first))

    evaluate.__doc__ = f"""Check, carry out and score: {benchmark_about(name)}.

    Without a run or an index the files are checked and counted. With --run, a run is scored, which needs no
    pictures. With --index, a first stage is made; with --rerank, its head, or that of a run, is reranked, and
    goes on after a kill. "value" takes a query without an answer for 0, "value_scored" leaves it out.
    """
    return evaluate


def _recipe(name: str, path: Path | None, **flags: Any) -> Recipe:
    from mmrerank import config

    values: dict[str, Any] = {}
    if path is not None:
        values = config.read_yaml(path)
        if (meant := values.pop("benchmark", name)) != name:
            raise UsageError(f"{path} is for mmrerank eval {meant}, not {name}")
    values |= {k: str(v) if isinstance(v, Path) else v for k, v in flags.items() if v is not None}
    for key in ("set", "options"):
        if not isinstance(values.get(key, {}), dict):
            raise UsageError(f"{path}: {key} must be a mapping of names to values")
    recipe = config.build(Recipe, values, where=str(path or f"eval {name}"))
    if not recipe.data:
        raise UsageError(f"--data DIR is needed: the folder of {name}'s own files")
    if recipe.rerank != "none":
        registry.load("strategy", recipe.rerank)  # a wrong name is told before anything is read
    return recipe


@dataclass(frozen=True, kw_only=True)
class _First:
    """A first stage that was just made, and where its pictures are."""

    path: Path
    run: Run
    warnings: list[str]
    locate: Locate
    models: dict[str, dict[str, Any]]
    domain: str

    def answer(self, task: Task) -> Answer:
        from mmrerank.evaluate.benchmark import read_answer

        read = read_answer(task, self.path)
        return replace(read, warnings=(*self.warnings, *read.warnings))


def _first_stage(task: Task, recipe: Recipe, folder: Path) -> _First:
    from mmrerank.embed._open import open_embedder
    from mmrerank.evaluate import first_stage as stage
    from mmrerank.evaluate.runs import Run, write_run
    from mmrerank.evaluate.shards import nearest_in_shards
    from mmrerank.evaluate.two_stage import in_folder
    from mmrerank.index.index import ImageIndex

    images = Path(recipe.images) if recipe.images else None
    warnings: list[str] = []
    locate = in_folder(task, images)
    domain = ""
    with working(), progress("first stage") as tell:
        if recipe.index:
            index = ImageIndex.open(recipe.index)
            domain = index.domain
            embedder = open_embedder(recipe.embedder or index.embedder_spec)
            run, warnings = stage.first_stage(
                task, index, embedder, images=images, depth=recipe.depth or None, progress=tell
            )
            names = stage.matched(task, task.gallery or (), index.ids)

            def locate(document: str) -> Any:
                return index.image(names.get(document, document))

        elif not recipe.embedder:
            raise UsageError("--shards needs --embedder, the model that made their vectors")
        else:
            embedder = open_embedder(recipe.embedder)
            if recipe.shards:
                rows = {}
                queries = [stage.query_of(task, q, images) for q in task.queries]
                lists = nearest_in_shards(
                    Path(recipe.shards),
                    embedder.embed_queries(queries),
                    recipe.depth or task.depth,
                    progress=tell,
                )
                rows = {q.id: ranked for q, ranked in zip(queries, lists, strict=True)}
                run = Run(rows=rows, tag="first-stage")
            elif task.lists:
                run = stage.own_candidates(task, embedder, images=images, progress=tell)
            else:
                raise UsageError(f"{task.benchmark} has no candidates of its own; give an --index")
        path = folder / "first-stage.trec"
        write_run(path, run, raw=folder / "first-stage.raw.jsonl")
    say(f"first stage in {path}")
    return _First(
        path=path,
        run=run,
        warnings=warnings,
        locate=locate,
        models={"embedder": {"spec": embedder.spec, "fingerprint": embedder.fingerprint}},
        domain=domain,
    )


def _reranked(
    task: Task,
    recipe: Recipe,
    first: _First | None,
    answers: list[Answer],
    folder: Path,
    fresh: bool,
    forecast: int | None,
    price: str | None,
) -> dict[str, Any]:
    from mmrerank.evaluate import two_stage
    from mmrerank.evaluate.forecast import Price
    from mmrerank.evaluate.resume import Resumable
    from mmrerank.evaluate.runs import Run

    runs = [a for a in answers if a.kind != "predictions"]
    if len(runs) != 1:
        raise UsageError(
            f"--rerank takes one run (--run FILE) or a first stage (--index X), not {len(runs)}"
        )
    cost = None if price is None else Price.parse(price)
    images = Path(recipe.images) if recipe.images else None
    locate = first.locate if first else two_stage.in_folder(task, images)
    with working(), progress("reranking") as tell:
        run = Run(rows=runs[0].rows)
        items = two_stage.items_of(task, run, recipe.candidates, locate, images)
        judging = Resumable(
            folder=folder,
            chat=recipe.chat,
            work={
                "benchmark": task.benchmark,
                "split": task.split,
                "candidates": recipe.candidates,
            },
            fresh=fresh,
            limit=forecast,
            price=cost,
            progress=lambda _, done, of: tell(done, of),
            say=say,
        )
        found = two_stage.rerank(
            task,
            run,
            items,
            judging,
            method=recipe.rerank,
            options=recipe.options,
            candidates=recipe.candidates,
            folder=folder,
            models=first.models if first else {},
        )
    model = judging.chat
    domain = getattr(model, "domain", "")
    if domain and domain != (first.domain if first else ""):
        found.setdefault("warnings", []).append(
            f"the language model {recipe.chat} is limited ({domain}); here its answers mean little"
        )
    return found


def _tell_forecast(body: dict[str, Any], output: Output) -> None:
    from mmrerank.evaluate.forecast import Forecast

    if output is Output.json:
        emit(body)
    else:
        typer.echo(f"{body['method']}: {Forecast(**body['forecast'])}")


def _finish(
    task: Task,
    answers: list[Answer],
    result: dict[str, Any] | None,
    output: Output,
    *,
    asked: bool,
) -> None:
    from mmrerank.cli._scores import figure, show, show_published
    from mmrerank.evaluate import benchmark

    if not answers or (not task.qrels and asked):
        # labels that are private leave only the check
        _describe(task, answers, output)
        return
    with working():
        scores = benchmark.score(task, answers)
        more = (result or {}).pop("warnings", [])
        scores = replace(
            scores, warnings=[*scores.warnings, *(w for w in more if w not in scores.warnings)]
        )
    if output is Output.json:
        emit({**scores.to_dict(), **(result or {})})
    else:
        head = headline(list(scores.metrics))
        show(scores, title=f"{task.benchmark} {task.split}", only=head)
        if result:
            name = next(n for n in head)
            before, best = result["first_stage"]["metrics"][name], result["ceiling"][name]
            measured = scores.metrics[name]
            typer.echo(
                f"{name}: first stage {figure(measured, before)}, best order of its first "
                f"{result['candidates']} {figure(measured, best)}; {result['usage']['calls']} calls, "
                f"{result['failed']} failed, {result['repaired']} repaired"
            )
        show_published(task.benchmark, task.split, head)
    if result and result["failed"]:
        raise typer.Exit(DEGRADED_EXIT_CODE)


def benchmark_about(name: str) -> str:
    """The benchmark in a few words, out of the data beside it."""
    # the first line alone: the command line starts without reading every figure
    package = resources.files(registry.KINDS["benchmark"])
    with package.joinpath(f"{name.replace('-', '_')}.yaml").open(encoding="utf-8") as file:
        return file.readline().removeprefix("about:").strip()


def headline(names: list[str], most: int = 40) -> list[str]:
    """The metrics that fit a screen: all of them, or those at the first cut-off."""
    if len(names) <= most:
        return names
    first = [n for n in names if n.endswith("Hit@1")]
    return first or names[:most]


def _describe(task: Task, answers: list[Answer], output: Output) -> None:
    warnings = [*task.warnings, *(w for a in answers for w in a.warnings)]
    body = {
        "benchmark": task.benchmark,
        "split": task.split,
        "queries": len(task.queries),
        "labelled": len(task.qrels),
        "images": None if task.gallery is None else len(task.gallery),
        "checked": [a.path for a in answers],
        "warnings": warnings,
    }
    if output is Output.json:
        emit(body)
        return
    images = "" if task.gallery is None else f", {len(task.gallery)} images"
    typer.echo(
        f"{task.benchmark} {task.split}: {len(task.queries)} queries{images}; the files are sound"
    )
    for answer in answers:
        typer.echo(
            f"{answer.path}: {len(answer.rows)} queries answered; the labels of {task.split} are not public"
        )
    for warning in warnings:
        say(f"warning: {warning}")
    if not answers:
        say("score a run with --run FILE, or make one with --index X")


def example(name: str) -> str:
    """Command lines for the help."""
    return (
        f"mmrerank eval {name} --data DATA/{name} --run {name}.trec --output json\n"
        f"  mmrerank eval {name} --data DATA/{name} --index {name} --rerank cotrr --chat bundled"
    )


def register(group: typer.Typer) -> None:
    """Adds a command for every benchmark that has none of its own."""
    for module in registry.names("benchmark"):
        name = module.replace("_", "-")
        if name != "demo":
            group.command(name, epilog=f"\b\nExample:\n  {example(name)}")(command(name))
