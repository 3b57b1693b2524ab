"""What tells one evaluation's work from another's, and what a method is like before it is run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrerank import registry
from mmrerank.chat.around.identity import chat_identity
from mmrerank.evaluation.experiment.forecast import rehearsed
from mmrerank.evaluation.experiment.provenance import code_digest, prompt_digests
from mmrerank.evaluation.experiment.reranking import Item
from mmrerank.ports import Chat
from mmrerank.rerank.methods import MethodSpec


def work_digest(
    options: Any, candidates: int, chat: str | Chat, limits: Mapping[str, Any], prompts: Path | str = ""
) -> str:
    """Tells evaluations of one benchmark apart that need journals of their own.

    Other weights, prompts, code or limits of a query are other work too: an update begins a folder instead
    of failing.
    """
    identity = chat_identity(chat) if chat else {}
    work = [dataclasses.asdict(options), candidates, dict(limits), identity]
    digest = json.dumps([*work, prompt_digests(chat, prompts), code_digest()], default=str)
    return hashlib.sha256(digest.encode()).hexdigest()[:8]


def asks_model(spec: MethodSpec) -> bool:
    """Whether a method asks a language model anything."""
    module = registry.load("strategy", spec.name)
    return bool({*registry.needs_of(module, spec.options)} - {"retrieve"})


def gives_verdicts(spec: MethodSpec, item: Item) -> bool:
    """Whether a method gives verdicts, as it shows when it is driven over a fake."""
    (driven,) = rehearsed(spec.name, spec.options, [item])
    return any(a.verdicts for a in driven.outcome.explanation.assessments.values())
