"""Prompt profiles: a model's own prompts stand in place of ours of the same name, for its questions alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.errors import UsageError
from mmrerank.evaluation.experiment.provenance import prompt_digests
from mmrerank.rerank import prompting
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate

OWN = """---
version: 7
variables: [query, candidates]
source: a test
---
## user
Yes or no: {{ query.text }}? {% for c in candidates %}{{ show(c) }}{% endfor %}
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    (tmp_path / "score.md").write_text(OWN.replace("[query, candidates]", VARIABLES), "utf-8")
    return tmp_path


VARIABLES = "[" + ", ".join(prompting.load("score").variables) + "]"
TEXTS = [Candidate(id="a", text="a boat"), Candidate(id="b", text="a tree")]


def asked(chat: Scripted) -> list[str]:
    Reranker("pointwise", chat).rank("a red boat", TEXTS)
    return [a.transcript for a in chat.asks]


def test_it_holds_for_the_model_that_brings_it(profile: Path) -> None:
    chat, other = (Scripted(lambda ask: {"yes": -0.1, "no": -2.0}) for _ in range(2))
    chat.prompts = str(profile)
    assert asked(chat)[0].startswith("user: Yes or no: a red boat?")
    assert not asked(other)[0].startswith("user: Yes or no")
    assert prompting.load("score").version != 7  # and for nobody else


def test_its_files_count_in_what_is_kept_of_a_run(profile: Path) -> None:
    chat = Scripted([])
    before = prompt_digests(chat)
    chat.prompts = str(profile)
    after = prompt_digests(chat)
    assert {n for n in before if before[n] != after[n]} == {"score"}


def test_a_file_that_is_wrong_is_an_error(profile: Path) -> None:
    (profile / "grade.md").write_text("no header")
    with prompting.profile(str(profile)), pytest.raises(UsageError, match="header"):
        prompting.load("grade")


def test_a_file_is_text_and_no_way_into_python(profile: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    text = "{{ cycler.__init__.__globals__.os.popen('touch " + str(marker) + "').read() }}"
    (profile / "score.md").write_text(OWN.replace("[query, candidates]", VARIABLES) + text, "utf-8")
    chat = Scripted([])
    chat.prompts = str(profile)
    with pytest.raises(UsageError, match=r"the prompt 'score' cannot be filled in: .*unsafe"):
        asked(chat)
    assert not marker.exists()
