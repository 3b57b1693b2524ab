"""Makes the first stage that an evaluation names (index, shards, own candidates) and writes it as a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmrerank.benchmark import Answer, Run, Task
from mmrerank.embed.open import open_embedder
from mmrerank.errors import UsageError
from mmrerank.evaluation.experiment import first_stage as stage
from mmrerank.evaluation.experiment.shards import nearest_in_shards
from mmrerank.evaluation.experiment.two_stage import Locate, in_folder
from mmrerank.evaluation.measure.runs import write_run
from mmrerank.evaluation.tasks import read_answer
from mmrerank.index.index import ImageIndex
from mmrerank.ports import Embedder
from mmrerank.query_embedder import embedder_for


@dataclass(frozen=True, kw_only=True)
class MadeFirstStage:
    """A first stage that was just made, and where its images are."""

    path: Path
    embedder: Embedder
    locate: Locate
    index: ImageIndex | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    """The index's id of each document."""
    warnings: Sequence[str] = ()

    @property
    def domain(self) -> str:
        """What the index is of, where it says so."""
        return self.index.domain if self.index else ""

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """What embedded, for provenance."""
        return {"embedder": {"spec": self.embedder.spec, "fingerprint": self.embedder.fingerprint}}

    def answer(self, task: Task) -> Answer:
        """Its lists, as read back."""
        read = read_answer(task, self.path)
        return replace(read, warnings=(*self.warnings, *read.warnings))


def make_first_stage(
    task: Task,
    folder: Path,
    *,
    index: Path | str = "",
    shards: Path | str = "",
    embedder: str | Embedder = "",
    options: Mapping[str, Any] | None = None,
    images: Path | None = None,
    depth: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> MadeFirstStage:
    """Embeds the queries, ranks what is named for each, and writes the run into ``folder``.

    ``options`` are those of an embedder that is opened here, such as ``text_weight``. Raises `UsageError`
    where that does not go together, and what reading an index or images raises.
    """
    depth = depth or task.depth
    given = options or {}
    if given and not isinstance(embedder, str):
        raise UsageError(f"{', '.join(given)}: options of an embedder go with its spec, not with an open one")
    path = folder / "first-stage.trec"
    if index:
        opened = ImageIndex.open(index)
        model = (
            embedder_for(opened.manifest, opened.path, embedder, **given)
            if isinstance(embedder, str)
            else embedder
        )
        made = stage.first_stage(task, opened, model, images=images, depth=depth, progress=progress)
        run, names = made.run, made.names
        found = MadeFirstStage(
            path=path, embedder=model, index=opened, names=names,
            warnings=made.warnings, locate=lambda d: opened.image(names.get(d, d)),
        )  # fmt: skip
    elif not embedder:
        raise UsageError("--shards needs --embedder, the model that made their vectors")
    else:
        model = open_embedder(embedder, **given) if isinstance(embedder, str) else embedder
        if shards:
            queries = [stage.query_of(task, q, images) for q in task.queries]
            lists = nearest_in_shards(Path(shards), model.embed_queries(queries), depth, progress=progress)
            rows = {q.id: ranked for q, ranked in zip(queries, lists, strict=True)}
            run = Run(rows=rows, tag="first-stage")
        elif task.lists:
            run = stage.own_candidates(task, model, images=images, progress=progress)
        else:
            raise UsageError(f"{task.benchmark} has no candidates of its own; give an --index")
        found = MadeFirstStage(path=path, embedder=model, locate=in_folder(task, images))
    # the lists are read back from there, and held once
    write_run(path, run, raw=path.with_suffix(".raw.jsonl"))
    return found
