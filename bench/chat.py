"""What the local language-model backend saves: batches, shared beginnings, stored images, and the driver.

    python bench/chat.py [--output json] [--family qwen2_5_vl] [--candidates 20] [--dtype float32]

Builds a Qwen2.5-VL and a Qwen3-VL of about 100 M parameters with random weights, split between vision and
text as in the published models of 2-3 B, and ranks 20 candidates of 256 visual tokens. Every ratio compares
times of one run, the baseline being the same code with one question a batch and nothing kept. Models run on a
GPU where there is one; without one, seconds are CPU seconds of one thread. Takes about six minutes there.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))

import numpy as np
import torch
from PIL import Image as Pillow
from tiny_qwen import build
from transformers.utils.logging import disable_progress_bar

from mmrerank.chat.transformers import open as open_chat
from mmrerank.chat.transformers.grammar import Grammars
from mmrerank.messages import Ask, Reply
from mmrerank.rerank import comparisons, judgements, states
from mmrerank.rerank.drive import drive
from mmrerank.rerank.strategies import pointwise, prp
from mmrerank.types import Candidate, Component, Image, Query, Ranking

SIZES: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "hidden": 576, "layers": 13, "heads": 9,
        "text_options": {"intermediate_size": 3096, "num_key_value_heads": 3},
        "vision_options": {
            "hidden_size": 384, "intermediate_size": 1026, "depth": 8, "num_heads": 6,
            "fullatt_block_indexes": [1, 3, 5, 7],
        },
    },
    "qwen3_vl": {
        "hidden": 576, "layers": 20, "heads": 9,
        "text_options": {"intermediate_size": 1728, "num_key_value_heads": 3},
        "vision_options": {
            "hidden_size": 320, "intermediate_size": 1280, "depth": 8, "num_heads": 5,
            "deepstack_visual_indexes": [2, 4, 6], "num_position_embeddings": 1024,
        },
    },
}  # fmt: skip
QUERIES = (
    Query(text="a red dog that runs past a blue house near the street"),
    Query(text="two green cups on a table under a tree"),
)
TOKENS = 256
VOCABULARY = 151_000


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. ``wanted`` is what the project aims at: a bound on ``value``, or nothing."""

    what: str
    value: float
    unit: str
    wanted: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        sign, _, bound = self.wanted.partition(" ")
        if not sign:
            return None
        return self.value >= float(bound) if sign == ">=" else self.value <= float(bound)


def photograph(side: int, seed: int) -> Image:
    """A JPEG of 640 x 480 pixels, to be resized to ``side`` x ``side`` or so by the model's own code."""
    noise = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    shown = Pillow.fromarray(noise).resize((640, 480), Pillow.Resampling.BICUBIC)
    shown.resize((max(side, 640), max(side, 640))).save(file, "jpeg", quality=90)
    return Image(data=file.getvalue())


class Clock:
    """Seconds that pass inside the model's own passes, the vision tower's included."""

    def __init__(self, model: Any) -> None:
        self.seconds, self._depth, self._since = 0.0, 0, 0.0
        for module in (model, model.model, model.model.visual):
            module.register_forward_pre_hook(self._enter)
            module.register_forward_hook(self._leave)

    def _enter(self, *_: Any) -> None:
        self._depth += 1
        if self._depth == 1:
            self._since = now()

    def _leave(self, *_: Any) -> None:
        self._depth -= 1
        if not self._depth:
            self.seconds += now() - self._since


def now() -> float:
    """Seconds, once the device is done; on a CPU those that this process used."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], Any]) -> float:
    """Seconds that ``work`` takes."""
    start = now()
    work()
    return now() - start


def answered(replies: Sequence[Reply]) -> None:
    """Raises when a reply failed: a failure is fast and would flatter the figures."""
    for reply in replies:
        if reply.error is not None:
            raise reply.error


def family(kind: str, folder: Path, candidates: int, dtype: str | None) -> list[Row]:
    """Every figure of one model family."""
    build(folder, kind, scale=1.0, **SIZES[kind])
    ours = open_chat(str(folder), dtype=dtype)
    plain = open_chat(str(folder), dtype=dtype, batch_size=1, prefix_bytes=0, feature_bytes=0)
    model = ours.qwen.model
    seen = sum(p.numel() for p in model.model.visual.parameters()) / 1e6
    rest = sum(p.numel() for p in model.parameters()) / 1e6 - seen
    rows = [
        Row(what="parameters of the vision tower", value=seen, unit="M"),
        Row(what="parameters of the rest", value=rest, unit="M"),
    ]
    found = [Candidate(id=f"{n}", image=photograph(512, n)) for n in range(candidates)]
    others = [Candidate(id=f"w{n}", image=photograph(512, 100 + n)) for n in range(2)]

    def point(query: Query, group: Sequence[Candidate] = found) -> list[Ask]:
        return [comparisons.score(query, c, image_tokens=TOKENS) for c in group]

    def one_by_one(asks: Sequence[Ask]) -> None:
        for ask in asks:
            answered(plain.reply([ask]))

    encoded = ours.qwen.encode(point(QUERIES[0])[0].messages, image_tokens=TOKENS)
    visual = sum(end - start for start, end in encoded.spans)
    rows.append(Row(what="visual tokens of a candidate", value=visual, unit="tokens"))
    rows.append(Row(what="tokens of a pointwise question", value=encoded.length, unit="tokens"))
    answered(ours.reply(point(QUERIES[0], others)))  # warm-up, with other images
    one_by_one(point(QUERIES[0], others))

    # pointwise, a text query
    base = timed(lambda: one_by_one(point(QUERIES[0])))
    clock = Clock(model)
    judging = pointwise.rank(QUERIES[0], Ranking(tuple(found)), pointwise.Options(image_tokens=TOKENS))
    first = timed(lambda: drive([judging], ours))
    outside = 100 * (first - clock.seconds) / first
    second = timed(lambda: answered(ours.reply(point(QUERIES[1]))))
    rows += [
        Row(what="pointwise, nothing shared or kept", value=base, unit="s"),
        Row(what="pointwise, first query", value=first, unit="s"),
        Row(what="pointwise, first query: speed-up", value=base / first, unit="x", wanted=">= 2"),
        Row(what="outside the model's passes", value=outside, unit="%", wanted="<= 5"),
        Row(what="pointwise, second query / first", value=second / first, unit="", wanted="<= 0.6"),
        Row(what="pointwise, second query: speed-up", value=base / second, unit="x"),
    ]

    # pointwise, a query with a reference image: half of each question is shared
    composed = Query(text="the same but at night", images=(photograph(512, 50),))
    half = found[: max(2, candidates // 2)]
    base = timed(lambda: one_by_one(point(composed, half)))
    ours.qwen.features.clear()
    first = timed(lambda: answered(ours.reply(point(composed, half))))
    rows.append(Row(what="pointwise, image query: speed-up", value=base / first, unit="x", wanted=">= 2"))

    # verdicts with notes: text is generated, for every candidate at once
    parts = [Component(id="c1", kind="subject", text="dog")]
    asks = [
        replace(judgements.evaluate(QUERIES[0], parts, [c], image_tokens=TOKENS), max_tokens=70) for c in half
    ]
    base = timed(lambda: one_by_one(asks))
    ours.qwen.features.clear()
    first = timed(lambda: answered(ours.reply(asks)))
    rows.append(Row(what="verdicts with notes: speed-up", value=base / first, unit="x"))

    # images first: one beginning, many questions about it
    several = [comparisons.pick(replace(QUERIES[0], text=t), found, image_tokens=TOKENS) for t in TEXTS]
    turned = [_images_first(a) for a in several]
    ours._prefixes.clear()
    ours.qwen.features.clear()
    first = timed(lambda: answered(ours.reply(turned[:1])))
    further = [timed(lambda a=a: answered(ours.reply([a]))) for a in turned[1:]]  # type: ignore[misc]
    share = 100 * max(further) / first
    rows.append(Row(what="images first, first question", value=first, unit="s"))
    rows.append(Row(what="images first, further question", value=share, unit="%", wanted="<= 10"))
    looked = [states.attend(q, found, image_tokens=TOKENS) for q in (*QUERIES, states.NOTHING)]
    ours._prefixes.clear()
    first = timed(lambda: answered(ours.reply(looked[:1])))
    further = [timed(lambda a=a: answered(ours.reply([a]))) for a in looked[1:]]  # type: ignore[misc]
    share = 100 * max(further) / first
    rows.append(Row(what="attention, first query (images kept)", value=first, unit="s"))
    rows.append(Row(what="attention, further query", value=share, unit="%", wanted="<= 10"))
    return rows


TEXTS = ("a red dog", "a blue house", "a street at night", "nobody in sight")


def _images_first(ask: Ask) -> Ask:
    """The same parts, all images (with their labels) before the words about them."""
    *before, user = ask.messages
    first = next(n for n, p in enumerate(user.parts) if p.image is not None)
    words, shown = user.parts[:first], user.parts[first:]
    return replace(ask, messages=(*before, replace(user, parts=(*shown, *words))))


def grammar() -> list[Row]:
    """What a grammar costs a token, at the vocabulary of the published models."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    draw = random.Random(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = dict.fromkeys(alphabet)
    while len(words) < VOCABULARY - 1:
        word = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 8)))
        words[draw.choice(("", "Ġ")) + word] = None
    vocabulary = {word: n for n, word in enumerate(words)}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    known = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>")
    grammars = Grammars(known, width=VOCABULARY, stop=[known.eos_token_id])
    found = [Candidate(id=f"{n}", text="x") for n in range(20)]
    ask = comparisons.grade(QUERIES[0], found)
    assert ask.schema is not None
    start = time.perf_counter()
    grammars.writing(ask.schema, ask.max_tokens)
    set_up = time.perf_counter() - start
    again = judgements.order(QUERIES[0], (), found, {})
    assert again.schema is not None
    start = time.perf_counter()
    grammars.writing(again.schema, again.max_tokens)
    compile_ = time.perf_counter() - start
    notes = ["red dog on grass", "a house", "nothing of it", "blue cup and a table"]
    body = {a: {"note": notes[n % 4], "grade": n % 11} for n, a in enumerate(ask.labels)}
    reply = json.dumps(body, separators=(",", ":"))
    tokens = known(reply, add_special_tokens=False)["input_ids"]
    writing = grammars.writing(ask.schema, len(tokens) + 700)
    start = time.perf_counter()
    taken = [writing.take(t) for t in tokens]
    accept = (time.perf_counter() - start) / len(tokens)
    assert all(taken)
    writing = grammars.writing(ask.schema, len(tokens) + 700)
    logits = torch.randn(1, VOCABULARY)
    seconds = 0.0
    for token in tokens[:200]:
        row = logits.clone()
        start = time.perf_counter()
        grammars.mask(row, [writing])
        row.argmax(-1)
        seconds += time.perf_counter() - start
        writing.take(token)
    return [
        Row(what="grammar: vocabulary", value=VOCABULARY, unit="tokens"),
        Row(what="grammar: set-up once a model", value=set_up, unit="s"),
        Row(what="grammar: a further schema", value=1000 * compile_, unit="ms"),
        Row(what="grammar: a token as the model wants it", value=1e6 * accept, unit="us"),
        Row(what="grammar: a token refused and masked", value=1e6 * seconds / 200, unit="us"),
    ]


class Slow:
    """A backend that takes 20 ms a call, however much is asked, and prefers the smaller id."""

    spec, domain = "slow", ""
    capabilities = frozenset({"choice_logprobs"})

    def reply(self, asks: Sequence[Ask]) -> list[Reply]:
        """Prefers the smaller id."""
        time.sleep(0.02)
        replies = []
        for ask in asks:
            best = min(range(len(ask.shown)), key=lambda n: int(ask.shown[n]))
            logprobs = {a: -0.1 if n == best else -2.3 for n, a in enumerate(ask.choices)}
            replies.append(Reply(logprobs=logprobs))
        return replies


def driver() -> list[Row]:
    """Sixteen queries of a method that is sequential within a query."""
    draw = random.Random(0)

    def judgings() -> list[Any]:
        made = []
        for _ in range(16):
            found = [Candidate(id=str(n), image=Image(data=b"x")) for n in range(10)]
            draw.shuffle(found)
            options = prp.Options(schedule="sliding", top=2)
            made.append(prp.rank(QUERIES[0], Ranking(tuple(found)), options))
        return made

    start = time.perf_counter()
    for judging in judgings():
        drive([judging], Slow())
    alone = time.perf_counter() - start
    start = time.perf_counter()
    drive(judgings(), Slow())
    together = time.perf_counter() - start
    return [
        Row(what="driver: 16 queries of prp sliding, one by one", value=alone, unit="s"),
        Row(what="driver: together, speed-up", value=alone / together, unit="x", wanted=">= 3"),
    ]


def main() -> None:
    """Runs everything and prints one table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", choices=("text", "json"), default="text")
    parser.add_argument("--family", choices=tuple(SIZES), action="append")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--dtype", help="default: what the backend chooses for the device")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    disable_progress_bar()
    found: dict[str, list[Row]] = {"any model": [*grammar(), *driver()]}
    for kind in args.family or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            found[kind] = family(kind, Path(folder), args.candidates, args.dtype)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    if args.output == "json":
        rows = {k: [{**vars(r), "met": r.met} for r in v] for k, v in found.items()}
        print(json.dumps({"device": where, "candidates": args.candidates, **rows}))
        return
    print(f"{args.candidates} candidates on {where}, torch {torch.__version__}")
    for kind, rows in found.items():
        for row in rows:
            aim = "" if row.met is None else f"{row.wanted:>8}  {'met' if row.met else 'MISSED'}"
            print(f"{kind:12} {row.what:46} {row.value:10.4g} {row.unit:7}{aim}")


if __name__ == "__main__":
    main()
