"""What ``mmrerank eval NAME`` does besides scoring: reads a recipe, makes a first stage, reranks a run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmrerank import registry
from mmrerank.cli.console import progress, say, working
from mmrerank.errors import UsageError

if TYPE_CHECKING:
    from mmrerank.benchmark import Answer, Run, Task
    from mmrerank.evaluation.experiment.resume import Surroundings
    from mmrerank.evaluation.experiment.two_stage import Locate


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


def read_recipe(name: str, path: Path | None, **flags: Any) -> Recipe:
    """The recipe at ``path``, then the environment's model, then the flags that were given.

    Other variables would turn a check of files into a first stage or a reranking, so they are not read.
    Raises `UsageError` and `InputError`.
    """
    from mmrerank import config

    values: dict[str, Any] = {}
    if path is not None:
        values = config.filled(config.read_yaml(path), Recipe)
        if (meant := values.pop("benchmark", name)) != name:
            raise UsageError(f"{path} is for mmrerank eval {meant}, not {name}")
    if chat := os.environ.get(f"{config.PREFIX}CHAT"):
        values["chat"] = chat
    values |= {k: str(v) if isinstance(v, Path) else v for k, v in flags.items() if v is not None}
    recipe = config.build(Recipe, values, where=str(path or f"eval {name}"))
    if not recipe.data:
        raise UsageError(f"--data DIR is needed: the folder of {name}'s own files")
    if recipe.rerank != "none":
        registry.load("strategy", recipe.rerank)  # a wrong name is told before anything is read
    return recipe


@dataclass(frozen=True, kw_only=True)
class First:
    """A first stage that was just made, and where its pictures are."""

    path: Path
    run: Run
    warnings: list[str]
    locate: Locate
    models: dict[str, dict[str, Any]]
    domain: str

    def answer(self, task: Task) -> Answer:
        """Its lists, as read back."""
        from mmrerank.evaluation.tasks import read_answer

        read = read_answer(task, self.path)
        return replace(read, warnings=(*self.warnings, *read.warnings))


def make_first_stage(task: Task, recipe: Recipe, folder: Path) -> First:
    """Embeds the queries, ranks what ``recipe`` names, and writes the run into ``folder``."""
    from mmrerank.benchmark import Run
    from mmrerank.embed.open import open_embedder
    from mmrerank.evaluation.experiment import first_stage as stage
    from mmrerank.evaluation.experiment.shards import nearest_in_shards
    from mmrerank.evaluation.experiment.two_stage import in_folder
    from mmrerank.evaluation.measure.runs import write_run
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
            made = stage.first_stage(
                task, index, embedder, images=images, depth=recipe.depth or None, progress=tell
            )
            run, warnings = made.run, [*made.warnings]

            def locate(document: str) -> Any:
                return index.image(made.names.get(document, document))

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
    return First(
        path=path,
        run=run,
        warnings=warnings,
        locate=locate,
        models={"embedder": {"spec": embedder.spec, "fingerprint": embedder.fingerprint}},
        domain=domain,
    )


def rerank(
    task: Task,
    recipe: Recipe,
    first: First | None,
    answers: list[Answer],
    folder: Path,
    fresh: bool,
    retry_failed: bool,
    forecast: int | None,
    price: str | None,
    around: Surroundings,
) -> dict[str, Any]:
    """Reranks ``first``, or else the one run among ``answers``; what it cost and where it is from."""
    from mmrerank.benchmark import Run
    from mmrerank.evaluation.experiment import two_stage
    from mmrerank.evaluation.experiment.forecast import Price
    from mmrerank.evaluation.experiment.resume import Resumable

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
            retry_failed=retry_failed,
            limit=forecast,
            price=cost,
            around=around,
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
    domain = "" if isinstance(model, str) else model.domain
    if domain and domain != (first.domain if first else ""):
        found.setdefault("warnings", []).append(
            f"the language model {recipe.chat} is limited ({domain}); here its answers mean little"
        )
    return found
