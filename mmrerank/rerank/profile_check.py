"""A folder of prompts, looked at before any model is loaded: every mistake is named with its file and line.

Files are read as templates that may do little (`_ALLOWED`), then filled in with made-up searches, so that
what would fail in the middle of a ranking fails here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mmrerank.errors import InputError, UsageError
from mmrerank.messages import Ask
from mmrerank.paths import reason
from mmrerank.reading import whole
from mmrerank.rerank import comparisons, judgements, prompting, states, unime
from mmrerank.rerank.describing import described
from mmrerank.rerank.profiles import FULL, Profile
from mmrerank.types import Assessment, Candidate, Component, Image, Query, Verdict

if TYPE_CHECKING:
    from jinja2 import nodes

_IGNORED = re.compile(r"(?i)\.|(readme|licen[cs]e|notice)(\.\w+)?$")
"""Files that are no prompts and do no harm: hidden ones, and what a repository has."""
_MOST = 100_000
"""Characters of a file: a hundred times what any prompt of ours has."""
_ALLOWED = frozenset({
    "Template", "Output", "TemplateData", "Name", "Const", "Getattr", "Getitem", "For", "If", "CondExpr",
    "Compare", "Operand", "And", "Or", "Not", "Include", "Call", "Filter", "Test", "Concat", "List", "Tuple",
})  # fmt: skip
"""Kinds of nodes of Jinja's tree."""
_SAID = "words"
"""The search in one line: another way to say what ``query`` holds, so that either will do."""
_FILTERS = ("length", "first", "last", "join", "lower", "upper", "capitalize", "trim", "default")
_TESTS = ("none", "defined", "undefined")
_SHAPED = (
    "a prompt may use {{ variable }}, {% if %}, {% for %} (at most one inside another), {% include "
    f'"_NAME.md" %}}, show(...) and the filters {", ".join(_FILTERS)}'
)


def check(profile: Profile) -> None:
    """Looks at every file of ``profile``. Raises `UsageError` or `InputError`."""
    folder = Path(profile.folder)
    own = _texts(folder)
    known = {f for f in Profile(name=FULL).files if f[0] != "_"}
    pieces = {f for f in (*Profile(name=FULL).files, *own) if f[0] == "_"}
    for name, text in own.items():
        if name[0] != "_" and name not in known:
            _wrong(folder / name, 0, f"there is no prompt of that name; there are {', '.join(sorted(known))}")
        _syntax(folder / name, text, pieces)
    for name, text in own.items():
        if name in prompting.included(text, profile.folder):
            _wrong(folder / name, 0, "it includes itself, through whatever files")
    asked = {
        n: [n, *prompting.included(prompting.source(n, profile.folder), profile.folder)]
        for n in sorted(known)
    }
    for name in own:
        if not any(name in files for files in asked.values()):
            used = ", ".join(sorted({f for files in asked.values() for f in files if f[0] == "_"}))
            _wrong(folder / name, 0, f"no prompt includes it; those that are included are {used}")
    for name, files in asked.items():
        mine = own.keys() & set(files)
        if name in own:
            _header(folder / name, own[name])
        if mine:
            _filled(folder, Path(name).stem, sorted(mine))


def _texts(folder: Path) -> dict[str, str]:
    """The prompt files of a folder by name. Raises `UsageError` for anything else that lies there."""
    try:
        found = sorted(p for p in folder.iterdir() if not _IGNORED.match(p.name))
        texts = {}
        for path in found:
            if not path.resolve().is_relative_to(folder.resolve()):
                _wrong(path, 0, "it is a link out of the folder; copy what it leads to")
            if path.is_dir() or path.suffix != ".md":
                _wrong(path, 0, "a profile holds prompt files only, NAME.md, and no folders")
            if path.exists() and not path.is_file():  # a pipe would be waited for without end
                _wrong(path, 0, "it is no file; a profile holds prompt files only, NAME.md")
            texts[path.name] = whole(path, most="line_bytes").decode("utf-8")
            if len(texts[path.name]) > _MOST:
                _wrong(path, 0, f"it is longer than {_MOST:,} characters")
    except OSError as error:
        raise InputError(f"the prompts in {folder} cannot be read: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: it is no UTF-8 text: {error}") from error
    if not texts:
        _wrong(folder, 0, "there is no prompt file in it; `mmrerank prompts full --to DIR` writes some")
    return {name: text.replace("\r\n", "\n") for name, text in texts.items()}


def _wrong(path: Path, line: int, what: str) -> NoReturn:
    raise UsageError(f"{path}{f', line {line}' if line else ''}: {what}")


def _header(path: Path, text: str) -> None:
    """What a prompt declares is what `full` has; it uses all of that, and its sections have their names."""
    prompt = prompting.load_from(path.stem, str(path.parent))
    wanted = prompting.load_from(path.stem, "").variables
    needed = [v for v in wanted if v != prompting.SHAPE]
    allowed = f"it has {', '.join(wanted) or 'none'}"
    for name in prompt.variables:
        if name not in wanted:
            _wrong(path, 0, f"variables: there is no {name!r} here; {allowed}")
    for name in needed:
        if name not in prompt.variables:
            _wrong(path, 0, f"variables: {name!r} is missing; {allowed}")
    _, body = prompting.split(text)
    offset = text[: len(text) - len(body)].count("\n")
    for number, line in enumerate(body.splitlines(), start=offset + 1):
        if re.match(r"##\s*(system|user|assistant)\b", line, re.I) and not prompting.SECTION.match(line):
            _wrong(path, number, f"{line!r} is no section; they are ## system, ## user and ## assistant")
    if (before := prompting.SECTION.split(body)[0]).strip():
        _wrong(path, offset + 1, f"{before.strip()[:40]!r} stands before the first section (## user)")
    names = _names(body, str(path.parent))
    if unknown := names - {*prompt.variables, "show"}:
        _wrong(path, 0, f"{sorted(unknown)[0]!r} is no variable of this prompt; {allowed}")
    for name in prompt.variables:
        if name not in {*names, _SAID}:
            _wrong(path, 0, f"it declares {name!r} and never uses it")


def _names(body: str, folder: str) -> set[str]:
    """The variables that a prompt and what it includes use."""
    texts = [body, *(prompting.source(n, folder) for n in prompting.included(body, folder))]
    return {name for text in texts for name in _undeclared(text)}


@cache
def _undeclared(text: str) -> set[str]:
    from jinja2 import meta

    return meta.find_undeclared_variables(prompting.parsed(text))


def _syntax(path: Path, text: str, pieces: set[str]) -> None:
    """No syntax error, and nothing that a prompt has no need of."""
    from jinja2 import TemplateSyntaxError, nodes

    header, body = prompting.split(text) if path.name[0] != "_" else ("", text)
    if not header and path.name[0] != "_":
        _wrong(path, 1, "it needs a header between lines of ---, with version, variables and source")
    offset = text[: len(text) - len(body)].count("\n")
    if marker := re.search("[\ue000-\uf8ff]", text):
        _wrong(path, text[: marker.start()].count("\n") + 1, "it holds a private-use character")
    try:
        tree = prompting.parsed(body)
    except TemplateSyntaxError as error:
        _wrong(path, offset + error.lineno, f"{error.message}; {_SHAPED}")
    seen = set(prompting.INCLUDE.findall(body))  # those that count for the digest
    for node, depth in _walked(tree):
        if isinstance(node, nodes.Include) and not (
            isinstance(node.template, nodes.Const) and node.template.value in seen
        ):
            _wrong(path, offset + node.lineno, f'include is written {{% include "_NAME.md" %}}; {_SHAPED}')
        if why := _forbidden(node, depth, pieces):
            _wrong(path, offset + node.lineno, f"{why}; {_SHAPED}")


def _walked(node: nodes.Node, depth: int = 0) -> Iterator[tuple[nodes.Node, int]]:
    """Every node of a template with the number of loops around it."""
    yield node, depth
    inside = depth + (type(node).__name__ == "For")
    for child in node.iter_child_nodes():
        yield from _walked(child, inside)


def _forbidden(node: nodes.Node, depth: int, pieces: set[str]) -> str:
    """Why ``node`` may not stand in a prompt; "" where it may."""
    from jinja2 import nodes

    kind = type(node).__name__
    if kind not in _ALLOWED:
        return f"{kind.lower()} is not allowed"
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        return f"{node.attr} is not allowed"
    if isinstance(node, nodes.Getitem) and not (
        isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, int)
    ):
        return "only a number may stand in [ ]"
    if isinstance(node, nodes.For) and (
        node.recursive or depth > 1 or not isinstance(node.iter, nodes.Name | nodes.Getattr)
    ):
        return "this loop is not allowed"
    if isinstance(node, nodes.Include):
        found = node.template.value if isinstance(node.template, nodes.Const) else None
        if found not in pieces:
            return f"include takes one of {', '.join(sorted(pieces))}, not {found!r}"
    if isinstance(node, nodes.Call):
        shows = isinstance(node.node, nodes.Name) and node.node.name == "show"
        if not shows or len(node.args) != 1 or node.kwargs or node.dyn_args or node.dyn_kwargs:
            return "show(ITEM) is the only call that is allowed"
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        return f"the filter {node.name!r} is not allowed"
    if isinstance(node, nodes.Test) and node.name not in _TESTS:
        return f"the test {node.name!r} is not allowed; there are {', '.join(_TESTS)}"
    return ""


_WORD = "xylograph"
_PICTURES = tuple(Image(data=f"picture {n}".encode()) for n in range(3))
_QUERIES = (
    Query(text=_WORD),
    Query(text=_WORD, images=_PICTURES[:1], exclude=("people",), instruction="the newest"),
    Query(text=_WORD, turns=("a boat", "make it red")),
    Query(images=_PICTURES[:1]),
)
_GROUP = (Candidate(id="a", image=_PICTURES[1], text="a caption"), Candidate(id="b", image=_PICTURES[2]))
_PARTS = (
    Component(id="c1", kind="subject", text="a boat"),
    Component(id="c2", kind="exclusion", text="no cat"),
)
_TOLD = {
    "a": Assessment(grade=2, verdicts=(Verdict(component="c1", verdict="partly", note="blue"),)),
    "b": Assessment(grade=None, verdicts=(Verdict(component="c1", verdict="met", note=""),)),
}


def _captions(query: Query) -> Ask:
    from mmrerank.rerank.strategies.plan import asked_captions

    return asked_captions(query, ["a boat, the sea", "a boat"])


ASKS: Mapping[str, Callable[[Query], Ask]] = {
    "deconstruct": judgements.deconstruct,
    "evaluate": lambda q: judgements.evaluate(q, _PARTS, _GROUP),
    "order": lambda q: judgements.order(q, _PARTS, _GROUP, _TOLD, show_images=True),
    "single": lambda q: judgements.single(q, _GROUP),
    "score": lambda q: comparisons.score(q, _GROUP[0]),
    "relevance": lambda q: comparisons.relevance(q, _GROUP[0]),
    "mark": lambda q: comparisons.mark(q, _GROUP[0]),
    "prefer": lambda q: comparisons.prefer(q, *_GROUP),
    "pick": lambda q: comparisons.pick(q, _GROUP),
    "written": lambda q: comparisons.written(comparisons.pick(q, _GROUP)),
    "choose": lambda q: comparisons.choose(q, _GROUP),
    "grade": lambda q: comparisons.grade(q, _GROUP),
    "think": lambda q: comparisons.thinking(comparisons.score(q, _GROUP[0])),
    "caption": _captions,
    "describe": described,
    "judge": lambda q: unime.pair(q, _GROUP[0]),
    "unime_list": lambda q: unime.best(q, _GROUP),
    "attend": lambda q: states.attend(q, _GROUP),
    "embed_query": lambda q: states.embed_query(q, _GROUP),
    "embed_candidate": lambda q: states.embed_candidate(_GROUP[0], q),
    "tokens_candidate": lambda q: states.tokens_of_candidate(_GROUP[0], q),
    "tokens_text": lambda q: states.tokens_of_text(_WORD, q),
}
"""A question of each kind about a made-up search; what stands in none of them is not filled in."""


def _filled(folder: Path, name: str, mine: list[str]) -> None:
    """The prompt ``name``, which ``mine`` are part of, asked of every kind of search."""
    if name not in ASKS:
        return
    where = " with ".join(str(folder / f) for f in mine)
    for query in _QUERIES:
        with prompting.profile(""):
            ours = ASKS[name](query)
        try:
            with prompting.profile(str(folder)):
                asked = ASKS[name](query)
        except UsageError as error:
            raise UsageError(f"{where}: {error}; {_SHAPED}") from error
        if missing := _images(ours) - _images(asked):
            what = "the reference image" if _PICTURES[0] in missing else "a candidate"
            raise UsageError(f"{where}: the prompt {name!r} does not show {what}: it needs show(...)")
        if _WORD in ours.transcript and _WORD not in asked.transcript:
            raise UsageError(f"{where}: the prompt {name!r} does not say what is searched for")


def _images(ask: Ask) -> set[Image]:
    return {p.image for m in ask.messages for p in m.parts if p.image is not None}
