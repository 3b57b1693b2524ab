"""From exercises to a step: what a batch holds, what its loss asks for, and layers that run faster."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from mmrerank.messages import Message, Part
from mmrerank.picturebook.facts import NUMBERS, plural_of
from mmrerank.picturebook.training.pool import Pool, make_pool
from mmrerank.picturebook.training.tokens import chat_tokenizer
from mmrerank.picturebook.training.vlm_batches import Encoder, batches, supply
from mmrerank.picturebook.training.vlm_data import Exercises
from mmrerank.picturebook.training.vlm_example import Example
from mmrerank.picturebook.training.vlm_fast import run_layers_fast
from mmrerank.picturebook.training.vlm_glance import LABELS
from mmrerank.picturebook.training.vlm_model import VlmShape, build
from mmrerank.picturebook.training.vlm_named import WORDS as SHOWN
from mmrerank.picturebook.training.vlm_step import batch_vision, look, look_once, loss_of, shared
from mmrerank.picturebook.world import COLUMNS, KINDS, ROWS, Thing, cell, stream

MIX = {"list": 1, "evaluate": 2, "deconstruct": 1, "order": 1, "score": 1,
       "prefer": 1, "pick": 1, "grade": 1, "look": 1, "tell": 1, "find": 1,
       "name": 1}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pool, Exercises, Encoder, object]:
    pool = make_pool(tmp_path_factory.mktemp("pool"), "train", seed=1, count=30, side=96)
    exercises = Exercises(pool.scenes, stream("train", 3), "train", MIX)
    texts = [t for _ in range(800) for t in _texts(exercises.draw())]
    tokenizer = chat_tokenizer(texts, 900)
    torch.manual_seed(0)
    model, processor = build(VlmShape(layers=1, vision_layers=1), tokenizer)
    encoder = Encoder(tokenizer, processor, VlmShape(), pool, model)
    return pool, exercises, encoder, (model, processor)


@pytest.mark.slow
def test_pictures_seen_once_give_the_same_loss(
    world: tuple,  # type: ignore[type-arg]
    tmp_path: Path,
) -> None:
    _, exercises, encoder, (model, _) = world
    looks = look_once(model, encoder, tmp_path).float()
    kept = list(tmp_path.iterdir())
    assert torch.equal(looks, look_once(model, encoder, tmp_path).float())
    assert list(tmp_path.iterdir()) == kept  # read, and not written again
    examples = [exercises.draw() for _ in range(40)]
    # references are drawn for their exercise, the other pictures are the pool's
    some = [e for e in examples if len({type(s) for s in e.scenes}) == 2]
    assert some
    for example in [*some, *examples[:6]]:
        batch = encoder.collate([(*encoder.encode(example), example)] * 2)
        with torch.no_grad():
            one, other = loss_of(model, batch, encoder), loss_of(model, batch, encoder, looks)
        assert torch.allclose(one, other, rtol=2e-3)  # kept in half precision


def test_rows_padded_on_the_right_need_no_mask(world: tuple) -> None:  # type: ignore[type-arg]
    # how a GPU runs the layers
    _, exercises, encoder, (_, processor) = world
    model, _ = build(VlmShape(layers=2, vision_layers=1), processor.tokenizer)
    layer = model.model.language_model.layers[0]
    run_layers_fast(model, compiled=False)
    batch = next(batches(exercises, encoder, 1500))
    assert not batch.mask.all()
    rows, length = batch.ids.shape
    x = torch.randn(rows, length, 192)
    turn = model.model.language_model.rotary_emb(x, batch.positions)
    ahead = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)
    hidden = ahead[None, None] | (batch.mask == 0)[:, None, None]
    mask = torch.zeros(hidden.shape).masked_fill(hidden, -1e9)
    with torch.no_grad():
        masked, plain = layer(x, mask, turn), layer(x, None, turn)
    there = batch.mask == 1
    # both in bfloat16, one of them as one fused computation
    assert (masked - plain)[there].norm() < 0.01 * (masked - x)[there].norm()


def test_training_sees_the_pixels_and_the_text_that_use_sees(world: tuple) -> None:  # type: ignore[type-arg]
    from PIL import Image as Pillow

    pool, exercises, encoder, (_, processor) = world
    pictures = [Pillow.fromarray(p) for p in pool.pixels[:3]]
    made = processor.image_processor(images=pictures, do_resize=False, return_tensors="pt")
    assert torch.allclose(made["pixel_values"], encoder.patches(torch.from_numpy(pool.pixels[:3])), atol=1e-5)
    example = next(e for e in iter(exercises.draw, None) if e.task == "evaluate")
    turns = [{"role": m.role, "content": _content(m)} for m in example.messages]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    spelt = text.replace("<|image_pad|>", "<|image_pad|>" * encoder.visual)
    assert spelt == encoder.text(example)


@pytest.mark.slow
def test_shared_instructions_change_neither_loss_nor_gradient(world: tuple, monkeypatch) -> None:  # type: ignore[no-untyped-def,type-arg]
    from mmrerank.picturebook.training import vlm_step

    _, exercises, encoder, (model, _) = world
    source = batches(exercises, encoder, 900)
    image = model.config.image_token_id
    for _ in range(4):
        batch = next(source)
        found = []
        for length in (shared(batch, image), 0):
            monkeypatch.setattr(vlm_step, "shared", lambda b, i, n=length: n)
            model.zero_grad()
            loss = loss_of(model, batch, encoder)
            loss.backward()
            found.append((loss.item(), model.model.language_model.embed_tokens.weight.grad.clone()))
        assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
        assert torch.allclose(found[0][1], found[1][1], atol=1e-5)


@pytest.mark.slow
def test_the_side_loss_changes_with_shared_instructions_as_little(  # type: ignore[no-untyped-def]
    world: tuple,  # type: ignore[type-arg]
    monkeypatch,
) -> None:
    from mmrerank.picturebook.training import vlm_step

    _, exercises, encoder, (model, _) = world
    source = batches(exercises, encoder, 900)
    for _ in range(6):
        batch = next(source)
        found = []
        for length in (shared(batch, encoder.image_id), 0):
            monkeypatch.setattr(vlm_step, "shared", lambda b, i, n=length: n)
            found.append(loss_of(model, batch, encoder, glance_weight=1.0).item())
        assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_a_verdict_a_digit_and_a_letter_count_more(world: tuple) -> None:  # type: ignore[type-arg]
    _, exercises, encoder, _ = world
    found: dict[str, set[str]] = {}
    for example in (exercises.draw() for _ in range(200)):
        ids, learnt, counts = encoder.encode(example)
        assert len(ids) == len(learnt) == len(counts)
        weighted = [i for i, heavy in zip(ids, counts, strict=True) if heavy]
        found.setdefault(example.task, set()).update(encoder.tokenizer.convert_ids_to_tokens(weighted))
    assert {"met", "partly", "missed"} <= found["evaluate"]
    # of the sentence over an order: whether its picture fits or comes closest, or what it shows
    claims = {"Ġfits", "Ġcomes", "Ġshows"}
    assert found["order"] & claims
    assert found["order"] <= {*"0123456789", *"ABCDEFGHIJKLMNOPQRST", *claims}
    assert found["grade"] <= set("0123456789")
    assert found["score"] == {"yes", "no"}
    assert found["pick"] <= set("ABCDEFGHIJKLMNOPQRST")


def test_a_glance_stands_where_an_image_or_its_row_ends(world: tuple) -> None:  # type: ignore[type-arg]
    _, exercises, encoder, _ = world
    for example in (exercises.draw() for _ in range(200)):
        ids, _, _ = encoder.encode(example)
        ends = encoder.ends(example)
        tokens = [encoder.tokenizer.convert_ids_to_tokens(ids[column]) for column, _, _ in ends]
        closing, scored = tokens[: len(example.fits)], tokens[len(example.fits) :]
        images = {t for t in closing if t == "<|vision_end|>"}
        assert images == set(closing) or all(t.endswith("Ċ") for t in closing)
        assert len(scored) in (0, len(example.fits))
        assert all(t.endswith(":") for t in scored)
        letters = [ids[column - 1] for column, _, _ in ends[len(closing) :]]
        names = encoder.tokenizer.convert_ids_to_tokens(letters)
        assert [LABELS.index(n) for n in names] == [place for _, place, _ in ends[len(closing) :]]


def test_where_a_thing_is_named_its_word_is_asked_what_is_shown_of_it(world: tuple) -> None:  # type: ignore[type-arg]
    pool, exercises, encoder, _ = world
    tasks: set[str] = set()
    for example in (exercises.draw() for _ in range(150)):
        if not example.named and not example.again:
            continue
        tasks.add(example.task)
        ids, _, _ = encoder.encode(example)
        scenes = [pool.scenes[n] for n in example.scenes if isinstance(n, int)]
        last = example.messages[-1].parts[-1].text or ""
        ends = [
            *((last, end) for end, _ in example.again),
            *((example.reply, end) for end, _ in example.named),
        ]
        asked = [*example.again, *example.named]
        for (text, end), (_, truth), (column, seen) in zip(ends, asked, encoder.named(example), strict=True):
            assert seen == truth
            before = encoder.tokenizer.decode(ids[: column + 1])
            assert before.endswith(text[:end])
            # the word stands there, singular or plural, and what is asked of it is in the scene
            word = text[:end].split()[-1].split('"')[-1]
            kind = next(k for k in KINDS if word in (k, plural_of(k)))
            claimed = {w for w, v in zip(SHOWN, seen, strict=True) if v == 1.0}
            shown = [
                [t for t in scene.things if t.kind == kind]
                # a reply that grades names things of one image after the other
                for scene in (scenes if example.task == "grade" else scenes[-1:])
            ]
            assert any(
                (claimed == {"no"}) == (not things) and claimed <= _facts_of(things) for things in shown
            )
    assert tasks == {"tell", "find", "name", "evaluate", "score", "grade"}


def _facts_of(things: list) -> set[str]:  # type: ignore[type-arg]
    """All that is true of ``things``, of which some may be asked about."""
    words = {w for t in things for w in (t.colour, t.size, *_where(t))}
    inside = {"inside"} if any(t.inside is not None for t in things) else set()
    return words | inside | {"no"} | set(NUMBERS[1 : 1 + len(things)])


def _where(thing: Thing) -> tuple[str, str]:
    row, column = cell(thing.x, thing.y)
    return ROWS[row], COLUMNS[column]


@pytest.mark.slow
def test_batches_made_in_other_processes_are_whole_and_differ(world: tuple) -> None:  # type: ignore[type-arg]
    _, exercises, encoder, _ = world
    source = supply(exercises, encoder, tokens=900, workers=2)
    first, second = next(source), next(source)  # a loader asks its workers in turn
    for batch in (first, second):
        assert batch.ids.shape == batch.labels.shape == batch.positions.shape[1:]
        assert (batch.labels != -100).any(1).all()
    assert first.ids.shape != second.ids.shape or not torch.equal(first.ids, second.ids)


@pytest.mark.slow
def test_batches_follow_the_mix_in_other_processes_too(world: tuple) -> None:  # type: ignore[type-arg]
    pool, _, encoder, _ = world
    both = Exercises(pool.scenes, stream("train", 8), "train", {"score": 1, "find": 1})
    for workers in (0, 1):
        both.practise({"score": 1})
        source = supply(both, encoder, tokens=8000, workers=workers)
        assert {t for _ in range(3) for t in next(source).tasks} == {"score"}
        both.practise({"find": 2})
        tasks = [next(source).tasks[0] for _ in range(60)]
        assert tasks.index("find") < 50
        assert set(tasks[-5:]) == {"find"}
    with pytest.raises(RuntimeError):
        both.practise({"tell": 1})


def test_pictures_of_one_size_attended_to_at_once_look_the_same(world: tuple) -> None:  # type: ignore[type-arg]
    pool, _, encoder, (model, _) = world
    grids = torch.tensor([[1, 12, 12]]).repeat(3, 1)
    pictures = torch.from_numpy(pool.pixels[:3])
    patches = encoder.patches(pictures)
    with torch.no_grad():
        apart = model.model.get_image_features(patches, grids, return_dict=True).pooler_output
        batch_vision(model)
        together = model.model.get_image_features(patches, grids, return_dict=True).pooler_output
        ours = look(model, encoder, pictures)
    assert torch.allclose(torch.cat(tuple(apart)), torch.cat(tuple(together)), atol=1e-5)
    assert torch.allclose(torch.stack(tuple(apart)), ours, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_fast_layers_are_as_near_to_float32_as_autocast_is(
    world: tuple,  # type: ignore[type-arg]
    compiled: bool,
) -> None:
    _, exercises, encoder, (_, processor) = world
    torch.manual_seed(3)
    model, _ = build(VlmShape(layers=2, vision_layers=1), processor.tokenizer)
    model.train()
    source = [next(batches(exercises, encoder, tokens)) for tokens in (900, 900, 1500, 1500, 200, 200)]
    assert {len(batch.ids) > 1 for batch in source} == {True, False}

    def gradients(half: bool) -> list[torch.Tensor]:
        found = []
        for batch in source:
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss_of(model, batch, encoder, glance_weight=1.0).backward()
            layers = model.model.language_model.parameters()
            found.append(torch.cat([w.grad.flatten() for w in layers]))
        return found

    exact = gradients(half=False)
    model.set_attn_implementation("eager")
    plain = gradients(half=True)
    run_layers_fast(model, compiled=compiled)
    fast = gradients(half=True)
    for true, one, other in zip(exact, plain, fast, strict=True):
        assert (other - true).norm() < 1.5 * (one - true).norm() < 0.05 * true.norm()


def test_digits_and_answers_are_single_tokens(world: tuple) -> None:  # type: ignore[type-arg]
    _, _, encoder, _ = world
    for word in (*"0123456789", "yes", "no", *"ABCDEFGHIJKLMNOPQRST"):
        assert len(encoder.tokenizer(word, add_special_tokens=False)["input_ids"]) == 1, word


def _texts(example: object) -> list[str]:
    messages: tuple[Message, ...] = example.messages  # type: ignore[attr-defined]
    return ["".join(p.text or "" for p in m.parts) for m in messages] + [example.reply]  # type: ignore[attr-defined]


def _content(message: Message) -> list[dict[str, str]]:
    def piece(part: Part) -> dict[str, str]:
        return {"type": "image"} if part.text is None else {"type": "text", "text": part.text}

    return [piece(p) for p in message.parts]


def test_the_letters_of_many_images_are_compared_with_their_chances(world: tuple) -> None:  # type: ignore[type-arg]
    pool, _, encoder, (model, _) = world
    exercises = Exercises(pool.scenes, stream("train", 5), "train", {"pick": 1})
    example = next(e for e in iter(exercises.draw, None) if e.chances)
    assert len(example.chances) == len(example.fits) > 5

    def learn(*examples: Example) -> torch.Tensor:
        batch = encoder.collate([(*encoder.encode(e), e) for e in examples])
        torch.manual_seed(1)
        with torch.no_grad():
            loss: torch.Tensor = loss_of(model, batch, encoder, count_weight=1e6)
        return loss

    # the loss of a letter that is drawn is, in the mean, the loss of the chances
    drawn = [
        dataclasses.replace(example, reply=letter, chances=()) for letter in LABELS[: len(example.chances)]
    ]
    mean = sum(p * learn(e) for p, e in zip(example.chances, drawn, strict=True))
    assert learn(example) == pytest.approx(float(mean), rel=1e-4)
    # whatever letter was drawn, and whoever stands beside it
    other = dataclasses.replace(example, reply="A" if example.reply != "A" else "B")
    assert learn(other) == pytest.approx(float(mean), rel=1e-4)
    both = learn(example, drawn[0])
    assert both == pytest.approx((float(mean) + float(learn(drawn[0]))) / 2, rel=1e-4)
