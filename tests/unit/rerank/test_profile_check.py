"""A folder of prompts is looked at before any model is loaded: the error names the file and what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from mmrerank.chat.fakes.scripted import Scripted
from mmrerank.errors import InputError, UsageError
from mmrerank.evaluation.experiment.provenance import profile_of, prompt_digests
from mmrerank.messages import Ask, Reply
from mmrerank.rerank import profile_check, profiles, prompting
from mmrerank.reranker import Reranker
from mmrerank.types import Candidate, Query

HEADER = "---\nversion: 1\nvariables: [query, candidates]\nsource: a test\n---\n"
BODY = (
    "## user\n{% for c in candidates %}{{ show(c) }}\n{% endfor %}{% for i in query.images %}{{ show(i) }}\n"
    '{% endfor %}Is it "{{ query.text }}"? yes or no\n'
)
TEXTS = [Candidate(id="a", text="a boat"), Candidate(id="b", text="a tree")]


def wrong(folder: Path, pattern: str, **files: str) -> None:
    """Writes ``files`` into an empty ``folder`` and expects the error."""
    shutil.rmtree(folder)
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.md").write_text(text, "utf-8")
    with pytest.raises(UsageError, match=pattern):
        profiles.opened(folder)


@pytest.mark.parametrize(
    ("pattern", "old", "new"),
    [
        (r"score\.md, line 1: it needs a header", HEADER, ""),
        (r"score\.md: its header is no YAML", "version: 1", "version 1:\n - ["),
        (r"score\.md needs a header with version", "version: 1\n", ""),
        (r"no 'candidate' here; it has query, candidates", "candidates]", "candidate]"),
        (r"variables: 'candidates' is missing; it has", ", candidates]", "]"),
        (r"'qury' is no variable of this prompt", "query.text", "qury.text"),
        (r"'candidates' and never uses it", "{% for c in candidates %}{{ show(c) }}\n{% endfor %}", ""),
        (r"no attribute 'wrods'", "query.text", "query.wrods"),
        (r"no attribute 'label'", "{{ show(c) }}", "{{ c.label }}{{ show(c) }}"),
        (r"does not show a candidate: it needs show", "{{ show(c) }}", "{{ c.id }}"),
        (r"does not show the reference image", "{{ show(i) }}", "."),
        (r"does not say what is searched for", '"{{ query.text }}"', "{{ query.exclude }}"),
        (r"needs a line '## user'", "## user\n", ""),
        (r"line 6: '## User' is no section", "## user", "## User\n## user"),
        (r"line 6: 'Hello' stands before the first section", "## user", "Hello\n## user"),
        (r"line 9: Unexpected end of template.*a prompt may use", "{% endfor %}Is", "Is"),
        (r"line 9: __class__ is not allowed; a prompt may use", "query.text", "query.__class__"),
        (r"line 9: mul is not allowed", "query.text", "query.text * 9"),
        (r"line 9: show\(ITEM\) is the only call", "query.text", "range(9)"),
        (r"line 9: the filter 'map' is not allowed", "query.text", "query.text|map('x')"),
        (r"line 9: only a number may stand in \[ \]", "query.text", "query['te' ~ 'xt']"),
        (r"line 6: assign is not allowed", "## user\n", "{% set x = 1 %}## user\n## user\n"),
        (r"include takes one of _again\.md, .*not '/etc/x'", "Is it", '{% include "/etc/x" %}Is it'),
        (r"include takes one of .*not '\.\./x\.md'", "Is it", "{% include '../x.md' %}Is it"),
        (r"line 8: this loop is not allowed", "{{ show(i) }}",
         "{% for a in query.turns %}{% for b in query.turns %}{{ show(i) }}{% endfor %}{% endfor %}"),
        (r"line 9: it holds a private-use character", "Is it", "\ue0000\ue001"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_an_error_that_says_where(tmp_path: Path, pattern: str, old: str, new: str) -> None:
    assert old in HEADER + BODY
    wrong(tmp_path, f"(?s){pattern}", score=(HEADER + BODY).replace(old, new, 1))


def test_what_is_no_prompt_is_an_error(tmp_path: Path) -> None:
    wrong(
        tmp_path, r"scores\.md: there is no prompt of that name; there are .*score\.md", scores=HEADER + BODY
    )
    wrong(tmp_path, r"_mine\.md: no prompt includes it; .*_words\.md", _mine="x")
    wrong(
        tmp_path,
        r"_words\.md: the prompt '\w+' cannot be filled in: 'qury' is undefined",
        _words="{{ qury }}",
    )
    wrong(tmp_path, "there is no prompt file in it")
    (tmp_path / "score.txt").write_text("x")
    with pytest.raises(UsageError, match=r"score\.txt: a profile holds prompt files only"):
        profiles.opened(tmp_path)
    (tmp_path / "score.txt").rename(tmp_path / "score.md")
    (tmp_path / "score.md").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"score\.md: it is no UTF-8"):
        profiles.opened(tmp_path)
    with pytest.raises(UsageError, match="no prompt profile 'nonesuch': it is full, compact or a folder"):
        profiles.opened("nonesuch")


def test_a_link_out_of_the_folder_is_an_error(tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text(HEADER + BODY)
    folder = tmp_path / "folder"
    folder.mkdir()
    try:
        (folder / "score.md").symlink_to(secret)
    except OSError:
        pytest.skip("links cannot be made here")
    with pytest.raises(UsageError, match=r"score\.md: it is a link out of the folder"):
        profiles.opened(folder)


def test_every_named_profile_can_be_written_and_named_again(tmp_path: Path) -> None:
    for profile in profiles.named():
        folder = tmp_path / profile.name
        folder.mkdir()
        for name, text in profiles.texts(profile):
            (folder / name).write_text(text, "utf-8")
        found = profiles.opened(folder)
        assert found.digest == profile.digest
        assert found.lacking == profile.lacking
    assert {p.name for p in profiles.named()} == {"full", "compact"}


def test_every_prompt_of_the_product_is_filled_in_when_a_profile_is_checked() -> None:
    # one that is missing there is only checked for its syntax; add a question of its kind
    assert profile_check.ASKS.keys() >= set(prompting.names())


def yes(ask: Ask) -> Reply:
    return Reply(logprobs={"yes": -0.1, "no": -2.0})


def test_a_profile_is_named_from_python_and_what_it_lacks_is_said(tmp_path: Path) -> None:
    (tmp_path / "_words.md").write_text("I want {{ query.text }}{{ query.turns|join }}.\n", "utf-8")
    chat = Scripted(yes)
    result = Reranker("pointwise", chat, prompts=tmp_path).rank("a red boat", TEXTS)
    assert "I want a red boat." in chat.asks[0].transcript
    assert result.warnings == (
        "the question 'score' was asked with the product's own prompt (full): "
        f"the profile {tmp_path.resolve()} has no score.md",
    )
    assert not Reranker("pointwise", Scripted(yes)).rank("a red boat", TEXTS).warnings
    (tmp_path / "score.md").write_text(HEADER + BODY, "utf-8")
    assert not Reranker("pointwise", Scripted(yes), prompts=tmp_path).rank("a red boat", TEXTS).warnings
    with pytest.raises(UsageError, match="no prompt profile"):
        Reranker("none", prompts="nonesuch")


def test_a_profile_of_the_catalogue_can_be_named_for_any_model(tmp_path: Path) -> None:
    chat = Scripted(yes)
    Reranker("pointwise", chat, prompts="compact").rank("a red boat", TEXTS)
    assert chat.asks[0].transcript.startswith("system: You judge images for a search engine.\n")
    chat = Scripted(yes)
    chat.prompts = next(p for p in profiles.named() if p.name == "compact").folder
    Reranker("pointwise", chat, prompts="full").rank("a red boat", TEXTS)
    assert chat.asks[0].transcript.startswith("system: You are a judge in an image search.")


def test_a_piece_may_not_include_itself(tmp_path: Path) -> None:
    wrong(tmp_path, r"_fits\.md: it includes itself", _fits='{% include "_fits.md" %}')
    both = {"_fits": '{% include "_again.md" %}', "_again": '{% include "_fits.md" %}'}
    wrong(tmp_path, r"_again\.md: it includes itself", **both)


def test_an_include_that_no_digest_would_count_is_refused(tmp_path: Path) -> None:
    body = HEADER + BODY.replace("Is it", '{% include("_fits.md") %}Is it')
    wrong(tmp_path, r"score\.md, line 9: include is written", score=body)


@pytest.mark.parametrize("text", ["{{ show('x') }}", "{% if query.text > 3 %}{% endif %}"])
def test_what_python_minds_in_a_prompt_is_named(text: str, tmp_path: Path) -> None:
    wrong(tmp_path, r"score\.md: the prompt 'score' cannot be filled in", score=f"{HEADER}{BODY}{text}\n")


def test_a_pipe_is_no_prompt_file_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "score.md")
    with pytest.raises(UsageError, match=r"score\.md: it is no file"):
        profiles.opened(tmp_path)


def test_figures_say_which_prompts_they_are_of(tmp_path: Path) -> None:
    (tmp_path / "score.md").write_text(HEADER + BODY, "utf-8")
    assert profile_of().name == "full"
    assert profile_of("bundled").name == "compact"
    assert profile_of("bundled", "full").name == "full"
    assert profile_of("", tmp_path).name == str(tmp_path)
    ours, own = prompt_digests(), prompt_digests("", tmp_path)
    assert {n for n in ours if ours[n] != own[n]} == {"score"}
    assert prompt_digests("bundled") == prompt_digests("", "compact") != ours


def test_a_file_that_was_changed_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "score.md"
    file.write_text(HEADER + BODY, "utf-8")
    before = profiles.opened(tmp_path).digest
    file.write_text(HEADER + BODY.replace("Is it", "Could it be"), "utf-8")
    assert profiles.opened(tmp_path).digest != before


def test_a_kept_reply_answers_no_question_of_another_wording(tmp_path: Path) -> None:
    asked = []
    for prompts in ("full", "compact", "full"):
        chat = Scripted(yes)
        chat.fake = False
        Reranker("pointwise", chat, prompts=prompts, cache=tmp_path / "kept.sqlite").rank("a boat", TEXTS)
        asked.append(len(chat.asks))
    assert asked == [2, 2, 0]


def test_the_form_of_a_reply_is_shown_wherever_one_is_wanted() -> None:
    from mmrerank.reply_shape import reply_shape, shows_shape

    for name, make in profile_check.ASKS.items():
        ask = make(Query(text="a red boat"))
        if ask.schema is not None:
            assert shows_shape(ask), name
            words = ask.transcript
            keys = re.findall(r'"(\w+)":', reply_shape(ask.schema))
            assert keys == re.findall(r'"(\w+)":', words[words.rindex(reply_shape(ask.schema)) :]), name
            assert json.dumps(ask.schema)[:60] not in words
