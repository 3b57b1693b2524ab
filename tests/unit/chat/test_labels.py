"""Labels and their tokens, in the real vocabulary of Qwen3, in small ones trained here, and in a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmrerank.chat.labels import label_of, spellings, spelt, token_ids
from mmrerank.errors import UsageError

SIX = ("yes", "Yes", "YES", " yes", " Yes", " YES")
QWEN3 = {"yes": (9693, 9454, 14004, 9834, 7414, 14080), "no": (2152, 2753, 8996, 902, 2308, 5664)}
"""Found with the tokenizer that Qwen3 models come with, by hand."""
O200K = {"yes": (6763, 13022, 31958, 14531, 11377, 32968), "no": (1750, 3160, 14695, 860, 3004, 9319)}
"""The same of o200k, GPT-4o's vocabulary."""


def coder(tokenizer: Any) -> tuple[Callable[[str], list[int]], Callable[[int], str]]:
    """A tokenizer of the package tokenizers as `token_ids` takes it."""
    return (
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        lambda id_: tokenizer.decode([id_], skip_special_tokens=False),
    )


def trained(pieces: Any, *, texts: list[str], special: str = "<unk>", decoder: Any = None) -> Any:
    """A byte-pair vocabulary in which ``texts`` are tokens, as far as ``pieces`` (a splitter) lets them."""
    from tokenizers import Tokenizer, models, trainers

    made = Tokenizer(models.BPE(unk_token=special))
    made.pre_tokenizer, made.decoder = pieces, decoder
    bytes_ = type(pieces).alphabet() if "Byte" in type(pieces).__name__ else []
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[special], initial_alphabet=bytes_, show_progress=False
    )
    made.train_from_iterator(texts * 50, trainer)
    return made


def byte_level(texts: list[str]) -> Any:
    from tokenizers import decoders, pre_tokenizers

    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return trained(splitter, texts=texts, decoder=decoders.ByteLevel())


def test_a_label_has_six_spellings_or_two() -> None:
    assert spellings("yes") == SIX
    assert spellings("True") == ("True", "true", "TRUE", " True", " true", " TRUE")
    assert (spellings("A"), spellings("7"), spellings("10")) == (("A", " A"), ("7", " 7"), ("10", " 10"))
    assert spelt(("yes", "no"), exact=True) == {"yes": ("yes",), "no": ("no",)}
    # a spelling that both could have is each label's own, or nobody's
    both = spelt(("Yes", "yes"))
    assert (both["Yes"], both["yes"]) == (("Yes",), ("yes",))


@pytest.mark.parametrize(
    ("token", "found"),
    [
        ("yes", "yes"), (" Yes", "yes"), ("YES", "yes"), ("\u2581Yes", "yes"), ("\u0120no", "no"),
        ("No\n", "no"), ("\u010ano", "no"), ("Not", None), ("Yes.", None), ("No,", None), ("noon", None),
        ("", None), (" ", None), ("\u2581", None), ('"Yes', None), ("y", None), ("None", None),
    ],
)  # fmt: skip
def test_which_label_a_token_spells(token: str, found: str | None) -> None:
    assert label_of(token, ("yes", "no")) == found
    assert label_of(token, ("yes", "no"), exact=True) == (token if token in ("yes", "no") else None)


def test_the_case_of_a_letter_is_its_own() -> None:
    letters = ("A", "B")
    told = ("A", " A", "\u2581B", "a", " a", "AB", "A.")
    assert [label_of(t, letters) for t in told] == ["A", "A", "B", None, None, None, None]
    assert label_of("\u01201", ("0", "1")) == "1"


class TestVocabularies:
    """`token_ids` over vocabularies of several kinds."""

    def test_the_real_one_of_qwen3(self, qwen3_vocabulary: Path) -> None:
        from tokenizers import Tokenizer

        encode, decode = coder(Tokenizer.from_file(str(qwen3_vocabulary / "tokenizer.json")))
        for before in ("\n", "<|im_start|>assistant\n"):
            assert token_ids(("yes", "no"), encode, decode, before=before) == QWEN3
        assert token_ids(("yes", "no"), encode, decode, exact=True) == {"yes": (9693,), "no": (2152,)}
        assert token_ids(("Yes", "No"), encode, decode, exact=True) == {"Yes": (9454,), "No": (2753,)}
        assert token_ids(("True", "False"), encode, decode, exact=True) == {"True": (2514,), "False": (4049,)}
        letters = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
        found = token_ids(letters, encode, decode)
        assert [ids[0] for ids in found.values()] == list(range(32, 58))
        assert found["A"] == (32, 362)
        # a space and a digit are two tokens there, and so is a ten
        assert token_ids(tuple("0123456789"), encode, decode) == {str(n): (15 + n,) for n in range(10)}
        with pytest.raises(UsageError, match="'10' is 2 tokens"):
            token_ids(("1", "10"), encode, decode)

    def test_the_table_of_o200k(self) -> None:
        ids = {"\n": 198}
        for word, own in O200K.items():
            ids |= dict(zip(spellings(word), own, strict=True))
        back = {n: text for text, n in ids.items()}

        def encode(text: str) -> list[int]:
            return [198, ids[text[1:]]] if text[1:] in ids else [ids[text]] if text in ids else [0, 0]

        assert token_ids(("yes", "no"), encode, back.__getitem__) == O200K

    def test_a_small_one_that_has_all_six(self) -> None:
        made = byte_level([f"\n{s}" for w in ("yes", "no") for s in spellings(w)])
        found = token_ids(("yes", "no"), *coder(made))
        for word in ("yes", "no"):
            assert sorted(made.decode([n]) for n in found[word]) == sorted(spellings(word))

    def test_one_that_has_some(self) -> None:
        made = byte_level(["is it? Yes", "is it? No", "or no"])
        found = token_ids(("yes", "no"), *coder(made))
        assert [made.decode([n]) for n in found["yes"]] == [" Yes"]
        assert {" No", " no"} <= {made.decode([n]) for n in found["no"]} < set(spellings("no"))
        with pytest.raises(UsageError, match="'maybe' is . tokens of it, in whichever spelling"):
            token_ids(("yes", "maybe"), *coder(made), name="it")
        with pytest.raises(UsageError, match="'yes' is . tokens of it; choices are single tokens"):
            token_ids(("yes", "no"), *coder(made), exact=True, name="it")

    @pytest.mark.parametrize("scheme", ["always", "first", "never"])
    def test_one_that_marks_the_beginnings_of_words(self, scheme: str) -> None:
        from tokenizers import decoders, pre_tokenizers

        splitter = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        texts = [f"\n{s}" for w in ("yes", "no") for s in spellings(w)] + ["so yes", "so no", "\n"]
        made = trained(splitter, texts=texts, decoder=decoders.Metaspace(prepend_scheme=scheme))
        found = token_ids(("yes", "no"), *coder(made), before="is it so")
        for word in ("yes", "no"):
            assert {made.decode([n]).strip().casefold() for n in found[word]} == {word}
            assert made.token_to_id(f"\u2581{word}") in found[word]
        assert not set(found["yes"]) & set(found["no"])

    def test_what_is_unknown_is_no_label(self) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers

        made = Tokenizer(models.WordLevel({"<unk>": 0, "yes": 1, "is": 2}, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        assert token_ids(("yes",), *coder(made), before="is ") == {"yes": (1,)}
        with pytest.raises(UsageError, match="'no'"):
            token_ids(("yes", "no"), *coder(made), before="is ")

    def test_labels_differ_and_stand_behind_what_precedes(self) -> None:
        from tokenizers import decoders, pre_tokenizers

        splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made = trained(splitter, texts=["(A", "yes", "A"], decoder=decoders.ByteLevel())
        with pytest.raises(UsageError, match="must differ"):
            token_ids(("yes", "yes"), *coder(made))
        assert token_ids(("A",), *coder(made))
        with pytest.raises(UsageError, match="merges with the beginning"):
            token_ids(("A",), *coder(made), before="(")
