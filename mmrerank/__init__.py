"""Image search that looks before it ranks. Public names are imported when first used."""

from __future__ import annotations

from mmrerank.version import __version__ as __version__

TYPE_CHECKING = False  # importing `typing` would cost more than all of this

_HOME = {
    "Budget": "budget",
    "Candidate": "types",
    "Component": "types",
    "Explanation": "types",
    "Filter": "filters.filter",
    "Hit": "types",
    "Image": "types",
    "ImageIndex": "index.index",
    "ImageSearch": "search",
    "MmrerankError": "errors",
    "Price": "budget",
    "Query": "types",
    "Ranking": "types",
    "Reranker": "reranker",
    "SearchResult": "results",
    "Term": "types",
    "combine": "rerank.combine",
    "compare": "evaluation.compare_runs",
    "evaluate": "evaluation.evaluate",
    "recommend": "evaluation.experiment.recommend",
    "score": "evaluation.score",
}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from typing import Any

    from mmrerank.budget import Budget as Budget
    from mmrerank.budget import Price as Price
    from mmrerank.errors import MmrerankError as MmrerankError
    from mmrerank.evaluation.compare_runs import compare as compare
    from mmrerank.evaluation.evaluate import evaluate as evaluate
    from mmrerank.evaluation.experiment.recommend import recommend as recommend
    from mmrerank.evaluation.score import score as score
    from mmrerank.filters.filter import Filter as Filter
    from mmrerank.index.index import ImageIndex as ImageIndex
    from mmrerank.rerank.combine import combine as combine
    from mmrerank.reranker import Reranker as Reranker
    from mmrerank.results import SearchResult as SearchResult
    from mmrerank.search import ImageSearch as ImageSearch
    from mmrerank.types import Candidate as Candidate
    from mmrerank.types import Component as Component
    from mmrerank.types import Explanation as Explanation
    from mmrerank.types import Hit as Hit
    from mmrerank.types import Image as Image
    from mmrerank.types import Query as Query
    from mmrerank.types import Ranking as Ranking
    from mmrerank.types import Term as Term


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mmrerank' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"mmrerank.{_HOME[name]}"), name)  # what a lazy name stands for


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
