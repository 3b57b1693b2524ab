"""Flags that several verbs share, and what their text means. Opens models only when a method needs them."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrerank.cli._files import filled, kept_in, write_to
from mmrerank.cli._models import announce
from mmrerank.cli.console import Output
from mmrerank.errors import InputError, UsageError
from mmrerank.limits import ANY, shown
from mmrerank.paths import looked_at

if TYPE_CHECKING:
    from mmrerank.budget import Budget
    from mmrerank.evaluation.experiment.resume import Surroundings
    from mmrerank.ports import Chat

IndexFlag = Annotated[
    str | None,
    typer.Option(
        "--index", metavar="X", show_default=False, parser=filled,
        help="Index folder, or a name below ./indexes (default: the only one there).",
    ),
]  # fmt: skip
IndexArgument = Annotated[
    str, typer.Argument(metavar="INDEX", help="Index folder, or a name below ./indexes.", parser=filled)
]
PerQueryFlag = Annotated[
    bool,
    typer.Option(
        "--per-query",
        help="Also the value of each query, as `trec_eval -q`: metric, query, value, with tabs between.",
    ),
]
OutputFlag = Annotated[Output, typer.Option("--output", help="How results are printed on stdout.")]
OptionsFlag = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option of the method; may be repeated."),
]
ChatOptionsFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--chat-option", metavar="NAME=VALUE",
        help="An option of the backend, such as timeout=30 or batch_size=4; may be repeated.",
    ),
]  # fmt: skip
ChatFlag = Annotated[
    str | None,
    typer.Option(
        "--chat", metavar="SPEC", show_default=False,
        help="The language model: transformers:PATH_OR_NAME, openai:MODEL@BASE_URL, vllm:MODEL@HOST, "
        "ollama:MODEL and other servers of `mmrerank list servers`, or a name of `mmrerank list models` "
        "(default: the one that is meant for the index, if any).",
    ),
]  # fmt: skip
ThresholdFlag = Annotated[
    float | None,
    typer.Option(
        "--threshold", metavar="RELEVANCE", show_default=False,
        help="Leave out images that the method finds less relevant than this, from 0 to 1, or did not judge.",
    ),
]  # fmt: skip
CollapseFlag = Annotated[
    str | None,
    typer.Option(
        "--collapse", metavar="KIND", show_default=False,
        help="Of copies show the first and name the others: identical (files with the same bytes) or near "
        "(also those that were resized or compressed again) (default: none).",
    ),
]  # fmt: skip
DeviceFlag = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", show_default=False,
        help="Where models run, such as cpu or cuda:0 (default: a GPU where there is one). open_clip "
        "embedders share the images of an index among several: cuda:0,cuda:1, or cuda for all.",
    ),
]  # fmt: skip

CacheFlag = Annotated[
    str | None,
    typer.Option(
        "--cache", metavar="FILE|off", show_default=False, parser=kept_in,
        help="Keep the model's replies in this file and never ask the same twice (default: off).",
    ),
]  # fmt: skip
RecordFlag = Annotated[
    Path | None,
    typer.Option(
        "--record", metavar="FILE.jsonl", show_default=False, parser=write_to,
        help="Add every question and reply to this file; --chat replay:FILE.jsonl answers from it.",
    ),
]  # fmt: skip
PromptsFlag = Annotated[
    str | None,
    typer.Option(
        "--prompts", metavar="NAME|DIR", show_default=False,
        help="The wording of the questions: a profile of `mmrerank list prompts` or a folder of your own "
        "(default: what the model is meant for).",
    ),
]  # fmt: skip
BudgetFlag = Annotated[
    str | None,
    typer.Option(
        "--budget", metavar="LIMITS", show_default=False,
        help="What one ranking may spend, such as calls=40,seconds=30 or money=0.05 (with --price) "
        "or tokens=20000; then the best order so far is given.",
    ),
]  # fmt: skip
TotalFlag = Annotated[
    str | None,
    typer.Option(
        "--total-budget", metavar="LIMITS", show_default=False,
        help="What the whole command may spend, in the same form.",
    ),
]  # fmt: skip
PriceFlag = Annotated[
    str | None,
    typer.Option(
        "--price", metavar="IN,OUT", show_default=False,
        help="Money per million tokens, for forecasts and budgets of money.",
    ),
]  # fmt: skip
EmbedderFlag = Annotated[
    str | None,
    typer.Option(
        "--embedder", metavar="SPEC", show_default=False,
        help="What embeds the query (default: what built the index, unless that is a folder or file of this "
        "machine).",
    ),
]  # fmt: skip
TrustFlag = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Let Python files of the model that --embedder names run as your own code.",
    ),
]
DryRunFlag = Annotated[bool, typer.Option("--dry-run", help="Say what the model would be asked, and stop.")]


def pairs(texts: Sequence[str] | None, flag: str) -> dict[str, Any]:
    """``["a=1"]`` as ``{"a": "1"}``; the last of a name counts. Raises `UsageError` without ``=``."""
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{flag} takes NAME=VALUE, not {text!r}")
        found[name.strip()] = value
    return found


def trusting(named: str, allowed: bool) -> dict[str, Any]:
    """The option that lets an embedder's Python files run, where that was allowed. Raises `UsageError` where
    nobody named the embedder.
    """
    if allowed and not named:
        raise UsageError(
            "--trust-remote-code goes with --embedder: name the model whose Python files may run"
        )
    return {"trust_remote_code": True} if allowed else {}


def budget_of(text: str | None, price: str | None) -> Budget | None:
    """The budget that a flag names, None without one. Raises `UsageError`."""
    from mmrerank.budget import Budget, Price

    cost = None if price is None else Price.parse(price)
    return None if text is None else Budget.parse(text, cost)


def without_money(price: str | None, *limits: str | None) -> None:
    """Raises `UsageError` where a dry run is given a price that no budget needs."""
    if price is not None and not any(limits):
        raise UsageError(
            "--dry-run counts questions and knows no tokens, so it takes no --price; "
            "`mmrerank recommend --price IN,OUT` estimates what a query costs"
        )


def surroundings(
    cache: str | None,
    record: Path | None,
    budget: str | None,
    total: str | None,
    price: str | None,
    *,
    chat: str,
    chat_option: Sequence[str] | None,
    prompts: str = "",
) -> Surroundings:
    """What stands around the model of an evaluation, out of the flags' texts. Raises `UsageError`."""
    from mmrerank.budget import Meter
    from mmrerank.chat.around.ledger import default_ledger
    from mmrerank.evaluation.experiment.resume import Surroundings

    whole = budget_of(total, price)
    return Surroundings(
        cache=cache or os.environ.get("MMRERANK_CACHE", ""),
        record=record or "",
        ledger=default_ledger() or "",
        budget=budget_of(budget, price),
        total=None if whole is None else Meter(whole),
        chat_options=_values(chat, pairs(chat_option, "--chat-option")),
        prompts=prompts,
    )


def chat_for(
    method: str,
    method_options: Mapping[str, Any],
    spec: Callable[[], str],
    *,
    device: str = "",
    options: Mapping[str, Any] | None = None,
    cache: str = "",
    record: Path | None = None,
    prompts: str = "",
) -> Chat | None:
    """The backend for ``method`` with its options, opened, or None when the method asks no model.

    ``spec`` says which, when it is needed. ``device`` goes to backends that run here; ``options`` to any.
    The ledger stands around it, and a cache, a record and other ``prompts`` where they are named.
    Raises `UsageError` for unknown names, and what opening raises.
    """
    from mmrerank import registry
    from mmrerank.config import build
    from mmrerank.rerank.methods import parse_method
    from mmrerank.rerank.profiles import folder_of

    folder_of(prompts)  # a wrong one is an error of every method
    name, named = parse_method(method)
    module = registry.load("strategy", name)
    chosen = build(module.Options, {**named, **method_options}, where=f"method {name}")
    if set(registry.needs_of(module, chosen)) <= {"retrieve"}:
        return None
    return opened(spec(), device=device, given=options or {}, cache=cache, record=record, prompts=prompts)


def opened(
    spec: str,
    *,
    device: str = "",
    given: Mapping[str, Any],
    cache: str = "",
    record: Path | None = None,
    prompts: str = "",
) -> Chat:
    """The backend for ``spec`` with what stands around it; arguments and errors as in `chat_for`."""
    from mmrerank.chat.around import around
    from mmrerank.chat.around.ledger import default_ledger
    from mmrerank.chat.open import open_chat
    from mmrerank.rerank.profiles import folder_of

    folder = folder_of(prompts)  # a wrong one costs no loading of a model
    announce("chat", spec)
    chat = open_chat(spec, **_values(spec, given, device))
    return around(chat, cache=cache, record=record or "", ledger=default_ledger() or "", prompts=folder)


def _values(spec: str, given: Mapping[str, Any], device: str = "") -> dict[str, Any]:
    """A backend's options, each of its type, out of texts or a recipe's values; ``device`` if taken."""
    from mmrerank import catalog, registry

    plugin = catalog.resolve("chat", spec).spec.partition(":")[0]
    kind = registry.kind_of("chat", plugin)
    if plugin not in registry.names(kind):
        return dict(given)
    known = inspect.signature(registry.load(kind, plugin).open).parameters
    values = {k: _typed(_text(v), known[k].default if k in known else None, k) for k, v in given.items()}
    if device and "device" in known:
        values.setdefault("device", device)
    return values


def _text(value: Any) -> str:
    """A recipe's value as a flag has it."""
    if isinstance(value, bool | Mapping | list):
        return json.dumps(value)
    return str(value)


def _typed(text: str, default: Any, name: str) -> Any:
    """``text`` as what the option's default is."""
    if isinstance(default, bool):
        word = {"true": True, "yes": True, "false": False, "no": False}.get(text.lower())
        if word is None:
            raise UsageError(f"--chat-option {name} must be true or false, not {text!r}")
        return word
    if not isinstance(default, int | float):
        return text
    try:
        number = type(default)(text)
    except ValueError:
        kind = type(default).__name__
        raise UsageError(f"--chat-option {name} must be a number ({kind}), not {shown(text)}") from None
    ANY.check(number, f"--chat-option {name}")
    return number


def existing_image(path: Path, where: str) -> Path:
    """``path``, when a file is there. Raises `InputError` starting with ``where``."""
    if not is_file(path, where):
        if is_folder(path, where):
            raise InputError(f"{where}: {str(path)!r} is a folder; name one image file")
        if path.exists():
            raise InputError(f"{where}: {str(path)!r} is a pipe or a device; `search --image -` reads stdin")
        raise InputError(f"{where}: there is no image file {str(path)!r}")
    return path


def is_file(path: Path, where: str) -> bool:
    """Whether a file is there. Raises `InputError` starting with ``where`` when that cannot be looked at."""
    return _looked(path.is_file, path, where)


def is_folder(path: Path, where: str) -> bool:
    """`is_file` for a folder."""
    return _looked(path.is_dir, path, where)


def _looked(at: Callable[[], bool], path: Path, where: str) -> bool:
    with looked_at(path, f"{where}:"):  # a name that is too long, a folder that nobody is let into
        return at()
