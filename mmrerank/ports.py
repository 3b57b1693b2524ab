"""The interfaces: what each kind of plug-in offers, and nothing that a caller uses is missing here.

A plug-in is one file. The file's name (or its entry point's name, in a package of your own) is its name:

    kind        entry-point group      the file defines
    strategy    mmrerank.strategies    NEEDS, FAMILY, PAPER, Options, rank        (see `Strategy`)
    chat        mmrerank.chats         FORM, open(rest, **options) -> Chat        (see `ChatPlugin`)
    scorer      mmrerank.scorers       FORM, open(rest, **options) -> Scorer      (see `ScorerPlugin`)
    embedder    mmrerank.embedders     FORM, open(rest, **options) -> Embedder    (see `EmbedderPlugin`)
    store       mmrerank.stores        open() -> VectorStore                      (see `StorePlugin`)
    corpus      mmrerank.corpora       FORM, accepts(location), open(location)    (see `CorpusPlugin`)
    benchmark   mmrerank.benchmarks    BENCHMARK, a `Benchmark`                   (see `BenchmarkPlugin`)
    verb        mmrerank.verbs         EXAMPLE, COMMAND                           (see `VerbPlugin`)

An entry point names the file, such as ``halves = "my_package.halves"``. A further group, ``mmrerank.models``,
adds rows to the catalogue of models: ``mine = "my_package.models:CARDS"``, a sequence of
`mmrerank.catalog.Card`.

Derive from a class below (``class MyChat(Chat)``) and every optional attribute and method has its default,
so that callers never probe. `mmrerank.registry` checks a plug-in when it is loaded; one contract test a kind
runs over all of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from mmrerank.answering import Numbered, ending, filled, in_parts

# these names are part of this file, and stand elsewhere for its length
from mmrerank.benchmark import Answer as Answer
from mmrerank.benchmark import Benchmark as Benchmark
from mmrerank.benchmark import BenchmarkFacts as BenchmarkFacts
from mmrerank.benchmark import BenchmarkPlugin as BenchmarkPlugin
from mmrerank.benchmark import BenchmarkQuery as BenchmarkQuery
from mmrerank.benchmark import Measured as Measured
from mmrerank.benchmark import NoOptions as NoOptions
from mmrerank.benchmark import Prepared as Prepared
from mmrerank.benchmark import Qrels as Qrels
from mmrerank.benchmark import Ranked as Ranked
from mmrerank.benchmark import Run as Run
from mmrerank.benchmark import Scored as Scored
from mmrerank.benchmark import Scores as Scores
from mmrerank.benchmark import Short as Short
from mmrerank.benchmark import Task as Task
from mmrerank.budget import bound
from mmrerank.messages import Ability as Ability
from mmrerank.messages import Ask, Reply, Retrieve, Stored
from mmrerank.messages import Judging as Judging
from mmrerank.messages import Outcome as Outcome
from mmrerank.messages import Room as Room
from mmrerank.scorer import Marks as Marks
from mmrerank.scorer import Scorer as Scorer
from mmrerank.scorer import ScorerPlugin as ScorerPlugin
from mmrerank.source import Corpus as Corpus
from mmrerank.source import CorpusPlugin as CorpusPlugin
from mmrerank.source import Sample as Sample
from mmrerank.types import Candidate, Image, Query, Ranking, Usage
from mmrerank.vector_store import Rows as Rows
from mmrerank.vector_store import StorePlugin as StorePlugin
from mmrerank.vector_store import Vectors as Vectors
from mmrerank.vector_store import VectorStore as VectorStore

Capability = Literal[
    "generate", "choice_logprobs", "attention", "embed", "token_embeddings", "score", "retrieve"
]
"""What a method may need of the model, but for ``retrieve``: an index to search again. ``score`` is what a
`Scorer` does."""
LEAST_SHARE = 0.02
"""Share of the probability that a question's labels must hold together; below it the model, which would
rather say something else, is asked for a written answer."""


# ---------------------------------------------------------------- embedders


@runtime_checkable
class Embedder(Protocol):
    """Turns images and queries into unit vectors of one space.

    ``spec`` is what the user typed to get it; ``fingerprint`` names model, weights and preprocessing, so
    that two embedders with one fingerprint give the same vectors. ``dim`` is the vectors' width.
    """

    spec: str
    fingerprint: str
    dim: int
    domain: str = ""
    """Empty for a general model; otherwise what little it knows. The catalogue's row sets it."""
    place: str = ""
    """The folder or the hub's name of its weights; empty where they are not one model's."""
    lists: bool = False
    """Whether `embed_after` reads a query after images, in one prompt."""
    prepares: bool = False
    """Whether `prepare` does something, in the threads that decode ahead of the model."""
    portion: int = 32
    """How many images one call of `embed_images` is best given: a batch for each of its devices."""

    def prepare(self, image: Any) -> Any:
        """What `embed_images` takes instead of an RGB ``PIL.Image``, such as a small tensor.

        Called from several threads, and only where ``prepares`` is true.
        """
        return image

    def overlong(self, text: str) -> tuple[int, int] | None:
        """How many tokens ``text`` has and how many of them are read, both with the marks around them.

        None, the default, where every text or this one is read whole.
        """
        return None

    def text_tower(self) -> Mapping[str, bytes]:
        """Files that embed words without this model, by name, for an index to keep; by default none.

        Raises `ModelError` with the reason where there should be some and are not.
        """
        return {}

    def embed_images(self, images: Sequence[Any]) -> Vectors:
        """Unit vectors ``(n, dim)`` of RGB images (``PIL.Image``), or of what `prepare` made of them."""
        ...

    def embed_queries(self, queries: Sequence[Query]) -> Vectors:
        """Unit vectors ``(n, dim)`` of queries: text, image, composed or dialogue.

        Raises `ImageError` for an image that cannot be decoded.
        """
        ...

    def embed_after(self, query: Query, images: Sequence[Image]) -> Vectors:
        """The unit vector ``(dim,)`` of ``query`` read after ``images``; only called where ``lists`` is true.

        Raises `ImageError` for an image that cannot be decoded.
        """
        found: Vectors = self.embed_queries([query])[0]
        return found

    def embed_documents(self, documents: Sequence[Query]) -> Vectors:
        """Unit vectors ``(n, dim)`` of what queries are to find: words, images, or both together.

        The default embeds them like queries, as models do that ask about both in one way.
        """
        return self.embed_queries(documents)


class EmbedderPlugin(Protocol):
    """The file of an embedder. ``FORM`` is how it is named on the command line, such as ``mine:PATH``."""

    FORM: str

    def open(self, rest: str, /) -> Embedder:
        """The embedder for ``NAME:rest``; further keywords, each with a default, are its options.

        One of them may be ``expect``, the fingerprint that it must have: `MismatchError` is then raised for
        another before any weights are loaded. An index's own word opens ``rest`` only where it names nothing
        on this machine. Raises `ModelError` when the weights are missing or of another kind.
        """
        ...


# ---------------------------------------------------------------- language models


@dataclass(frozen=True, kw_only=True)
class ChatFacts:
    """What a backend has found out about itself, for `mmrerank doctor`. None is "not known".

    ``schema`` says what became of JSON schemas so far: after
    ``ignored`` and ``refused`` they are written into the prompt. ``abilities``: what is on and off for a
    model in this process, and why.
    """

    model: str = ""
    cached_tokens: int | None = None
    thinks: bool | None = None
    schema: Literal["", "obeyed", "ignored", "refused"] = ""
    abilities: tuple[Ability, ...] = ()


@runtime_checkable
class Chat(Protocol):
    """A multimodal language model. ``capabilities`` says which questions it can answer.

    Law: `reply` returns one reply per ask, in order, and the reply to an ask depends on nothing but that
    ask (not its neighbours, not its ``kind`` or ``shown``). A failed ask is a reply with ``error``; only
    what concerns every ask (no such model, no such capability) is raised. An ask with ``choices`` gets a
    log-probability for each of them and no text; any other gets text. ``usage`` counts the call, the tokens
    and the images.

    >>> class Yes(Chat):
    ...     spec = "yes"
    ...     capabilities = frozenset({"generate"})
    ...     def reply(self, asks):
    ...         return [Reply(text="yes") for _ in asks]
    """

    spec: str
    capabilities: frozenset[Capability]
    domain: str = ""
    """Empty for a general model; otherwise what little it knows. The catalogue's row sets it."""
    prompts: str = ""
    """The folder of its prompt profile; empty for the product's own. The catalogue's row sets it."""
    room: Room = Room()
    """What one of its questions may hold, as far as it is known, and what ``auto`` means for it."""
    fingerprint: str = ""
    """What else than the spec can change a reply: precision, versions, a grammar."""
    settings: Mapping[str, Any] = {}
    """The options that it was opened with and that can change a reply."""
    concurrency: int = 1
    """How many rankings may ask at once. 1: they share batches. Servers take more."""
    label_share: float = LEAST_SHARE
    """Share of the probability below which labels are asked for again as text; 0 never does."""
    batch: int = 1
    """How many questions `reply_each` gives to `reply` at a time; more where answering together is faster."""
    fake: bool = False
    """Whether it reads what only fakes may read; it is then never cached."""
    group: int = 1
    """How many candidates a question of capability ``score`` holds (`Scorer.group`)."""

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answers every ask."""
        ...

    def reply_within(self, asks: Sequence[Ask], seconds: float | None) -> list[Reply]:
        """`reply`, given up after so many seconds where the backend can do that; by default it cannot."""
        return self.reply(asks)

    def reply_each(self, asks: Sequence[Ask], seconds: float | None = None) -> Numbered:
        """Replies as they come, in any order, each with the place of its ask; closing it gives up the rest.

        Asked where somebody waits for each reply, may cancel, or set a limit of seconds: what has no answer
        then gets a `BudgetError`. By default `reply` of ``batch`` asks at a time.
        """
        end = ending(seconds)

        def part(some: Sequence[Ask]) -> list[Reply]:
            if end is None:
                return self.reply(some)
            return self.reply_within(some, max(end - time.monotonic(), 0.0))

        return filled(in_parts(part, asks, self.batch, self.spec, end), len(asks), end)

    def known(self, asks: Sequence[Ask]) -> list[Reply | None]:
        """The replies that cost nothing, such as kept ones; None for the others."""
        return [None] * len(asks)

    def bound(self, ask: Ask) -> Usage:
        """The most that ``ask`` can cost here, for budgets."""
        return bound(ask)

    def cancel(self) -> None:
        """Gives up what is under way, from another thread."""
        return

    def close(self) -> None:
        """Frees what it holds; it is not asked again."""
        return

    def facts(self) -> ChatFacts:
        """What it has found out about itself so far. Asks nobody."""
        return ChatFacts()

    def models(self) -> list[str] | None:
        """The models that its server lists; None where there is no such list. Raises `ChatError`."""
        return None


class ChatPlugin(Protocol):
    """The file of a language model's backend. ``FORM`` is how it is named, such as ``mine:MODEL``.

    It may define ``revision(rest)``: what tells these weights from others of that name, such as a commit.
    """

    FORM: str

    def open(self, rest: str, /) -> Chat:
        """The backend for ``NAME:rest``; further keywords, each with a default, are its options.

        Raises `ModelError` when there is no such model here, `UsageError` for a wrong option.
        """
        ...


# ---------------------------------------------------------------- strategies


class Retriever(Protocol):
    """A first stage that can be asked again in the middle of a ranking: an index with its embedder."""

    def retrieve(self, requests: Sequence[Retrieve]) -> list[tuple[Candidate, ...]]:
        """Images with their scores, best first, for each request."""
        ...

    def stored(self, request: Stored) -> tuple[Vectors, ...]:
        """Vectors ``(dim,)`` of the query and of each image asked for; none, the default, where it has none.

        Raises `InputError` for an image that it does not hold.
        """
        return ()


@dataclass(frozen=True, kw_only=True)
class StrategyOptions:
    """What every method's ``Options`` derives from; its fields become ``-o name=value`` and page controls.

    The methods say what a ranking of ``k`` candidates costs with these very options. ``__post_init__`` may
    raise `ValueError` for a value out of place.
    """

    def needs(self) -> tuple[Capability, ...] | None:
        """The capabilities needed with these options; None: the file's ``NEEDS``."""
        return None

    def calls(self, k: int) -> int | None:
        """The most questions for ``k`` candidates; None where only a rehearsal can tell."""
        return None

    def settles(self, k: int) -> int:
        """How many of the first places are in the model's order, the rest in the first stage's."""
        return k

    def hands_on(self, k: int) -> int:
        """The most candidates in the outcome: more than ``k`` where the method searches again."""
        return k


class Strategy(Protocol):
    """The file of a reranking method.

    ``NEEDS`` lists the capabilities asked of the backend. ``FAMILY`` is one word for tables, ``PAPER`` the
    source or empty.

    >>> # my_package/halves.py
    >>> NEEDS, FAMILY, PAPER = ("generate",), "listwise", ""
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Options(StrategyOptions):
    ...     size: int = 10
    >>> def rank(query, ranking, options):
    ...     replies = yield []
    ...     return Outcome(ranking=ranking)
    """

    NEEDS: tuple[Capability, ...]
    FAMILY: str
    PAPER: str

    @property
    def Options(self) -> type[StrategyOptions]:
        """A frozen dataclass, every field with a default."""
        ...

    def rank(self, query: Query, ranking: Ranking, options: Any, /) -> Judging:
        """Judges ``ranking`` for ``query``. Does no I/O, knows no backend, asks by yielding.

        Law: the outcome's ranking is a permutation of ``ranking`` (and what a `Retrieve` found), whatever
        the replies say; a failed reply is no information.
        """
        ...


# ---------------------------------------------------------------- verbs


class VerbPlugin(Protocol):
    """The file of a verb: ``mmrerank NAME``. The first sentence of its docstring stands in ``--help``.

    ``EXAMPLE`` is one command a line. The file is imported when the verb runs and not before.
    """

    EXAMPLE: str

    @property
    def COMMAND(self) -> Any:
        """A function with Typer's annotations, or a ``typer.Typer`` of several commands."""
        ...
