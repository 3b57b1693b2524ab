"""Both recipes run for a few steps and give folders that open by the ordinary doors."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from mmrerank.config import read_yaml
from mmrerank.demo.facts import NUMBERS, plural_of
from mmrerank.demo.world import COLUMNS, KINDS, ROWS, Thing, cell, sample_scene, stream
from mmrerank.errors import InputError, UsageError
from mmrerank.messages import Message, Part
from mmrerank.rerank import prompting
from mmrerank.train.demo_vlm import VlmRecipe
from mmrerank.train.eyes import labels, positions_of, shown
from mmrerank.train.pacing import share_done
from mmrerank.train.pool import Pool, make_pool
from mmrerank.train.run import train
from mmrerank.train.tokens import chat_tokenizer
from mmrerank.train.vlm_batches import Encoder, batches, supply
from mmrerank.train.vlm_data import Exercises
from mmrerank.train.vlm_fast import run_layers_fast
from mmrerank.train.vlm_glance import LABELS
from mmrerank.train.vlm_model import VlmShape, build
from mmrerank.train.vlm_named import WORDS as SHOWN
from mmrerank.train.vlm_step import batch_vision, look_once, loss_of, shared
from mmrerank.types import Candidate, Image, Query

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ("deconstruct", "evaluate", "order", "score", "prefer", "pick", "grade")
MIX = {"list": 1, "evaluate": 2, "deconstruct": 1, "order": 1, "score": 1,
       "prefer": 1, "pick": 1, "grade": 1, "look": 1, "tell": 1, "find": 1,
       "name": 1}  # fmt: skip
SMALL_VLM = """model: vlm
steps: 3
batch_tokens: 1200
scenes: 24
vocabulary: 1100
eyes_steps: 2
eyes_batch: 4
words_steps: 2
warmup: 1
shape: {side: 48, vision_hidden: 32, vision_layers: 1, vision_heads: 1, hidden: 64, layers: 1, heads: 2,
        intermediate: 64}
phases:
  - {share: 0.5, mix: {list: 1, deconstruct: 1}}
  - {share: 0.5, mix: {evaluate: 2, order: 1, score: 1}}
"""


def recipe(folder: Path, text: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text, "utf-8")
    return file


def test_the_multimodal_recipe_runs_and_resumes(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from mmrerank.chat._open import open_chat
    from mmrerank.rerank import comparisons

    file, out = recipe(tmp_path, SMALL_VLM), tmp_path / "out"
    done = train(file, out=out)
    assert done["steps"] == 3
    assert (out / "loss.png").stat().st_size > 1000
    with pytest.raises(InputError, match="--resume"):
        train(file, out=out)
    longer = train(file, out=out, steps=5, resume=True)
    assert longer["steps"] == 5
    assert longer["samples"] > done["samples"]  # counted over the whole run
    assert len((out / "log.csv").read_text("utf-8").splitlines()) == 6
    assert train(file, out=out, steps=5, resume=True)["steps"] == 5  # it was over: nothing is added
    before, after = (
        load_file(out / part / "model.safetensors") for part in ("eyes/model", "model")
    )
    tower = [name for name in after if "visual" in name]
    assert tower
    assert all(torch.equal(before[name], after[name]) for name in tower)
    words = next(name for name in after if name.endswith("embed_tokens.weight"))
    assert not torch.equal(before[words], after[words])
    chat = open_chat(f"transformers:{out / 'model'}")
    picture = Image(data=_png(np.zeros((60, 80, 3), np.uint8)))
    ask = comparisons.score(Query(text="a boat"), Candidate(id="a", image=picture))
    (reply,) = chat.reply([ask])
    assert reply.error is None
    assert set(reply.logprobs) == {"yes", "no"}


def test_two_processes_train_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = (
        recipe(tmp_path, SMALL_VLM.replace("steps: 3", "steps: 4\nprocesses: 2")),
        tmp_path / "out",
    )
    done = train(file, out=out)
    assert done["steps"] == 4
    assert not (out / "meeting").exists()
    rows = (out / "log.csv").read_text("utf-8").splitlines()
    assert len(rows) == 5  # one process keeps the books
    # scenes that were thrown away are drawn again before a second process starts, which cannot draw many
    shutil.rmtree(out / "pool")

    def stop(method: str) -> None:
        raise RuntimeError(f"{method}: {len(list((out / 'pool').glob('*.jsonl')))} pools")

    monkeypatch.setattr("mmrerank.train.demo_vlm.multiprocessing.get_context", stop)
    with pytest.raises(RuntimeError, match="spawn: 1 pools"):
        train(file, out=out, steps=5, resume=True)


def test_pictures_seen_once_give_the_same_loss(
    world: tuple,  # type: ignore[type-arg]
    tmp_path: Path,
) -> None:
    _, exercises, encoder, (model, _) = world
    looks = look_once(model, encoder, tmp_path).float()
    kept = list(tmp_path.iterdir())
    assert torch.equal(looks, look_once(model, encoder, tmp_path).float())
    assert list(tmp_path.iterdir()) == kept  # read, and not written again
    source = batches(exercises, encoder, 1500)
    for _ in range(6):
        batch = next(source)
        with torch.no_grad():
            one, other = loss_of(model, batch, encoder), loss_of(model, batch, encoder, looks)
        assert torch.allclose(one, other, rtol=2e-3)  # kept in half precision


def test_a_wrong_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown option 'stepz'.*Did you mean 'steps'"):
        train(recipe(tmp_path, "model: vlm\nstepz: 3\n"), out=tmp_path / "out")
    with pytest.raises(UsageError, match="model must be one of clip, vlm"):
        train(recipe(tmp_path, "model: gpt\n"), out=tmp_path / "out")


@pytest.mark.parametrize("name", ["clip", "vlm"])
def test_the_shipped_recipes_are_valid(name: str) -> None:
    from mmrerank.config import build as build_options
    from mmrerank.train.demo_clip import ClipRecipe, ClipShape

    values = read_yaml(ROOT / f"configs/train/demo-{name}.yaml")
    assert values.pop("model") == name
    kind = VlmRecipe if name == "vlm" else ClipRecipe
    settings = build_options(kind, values, where=name)
    shape = VlmShape(**settings.shape) if name == "vlm" else ClipShape(**settings.shape)
    assert dataclasses.asdict(shape)


@pytest.mark.parametrize("name", PROMPTS)
def test_the_shipped_model_was_trained_on_todays_prompts(name: str) -> None:
    card = (ROOT / "mmrerank/demo/models/vlm/README.md").read_text("utf-8")
    assert f"{name}: `{prompting.load(name).digest}`" in card


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


def test_training_sees_the_pixels_and_the_text_that_use_sees(world: tuple) -> None:  # type: ignore[type-arg]
    from PIL import Image as Pillow

    pool, exercises, encoder, (_, processor) = world
    pictures = [Pillow.fromarray(p) for p in pool.pixels[:3]]
    made = processor.image_processor(images=pictures, do_resize=False, return_tensors="pt")
    assert torch.allclose(
        made["pixel_values"], encoder.patches(torch.from_numpy(pool.pixels[:3])), atol=1e-5
    )
    example = next(e for e in iter(exercises.draw, None) if e.task == "evaluate")
    turns = [{"role": m.role, "content": _content(m)} for m in example.messages]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    spelt = text.replace("<|image_pad|>", "<|image_pad|>" * encoder.visual)
    assert spelt == encoder.text(example)


def test_shared_instructions_change_neither_loss_nor_gradient(world: tuple, monkeypatch) -> None:  # type: ignore[no-untyped-def,type-arg]
    from mmrerank.train import vlm_step

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


def test_the_side_loss_changes_with_shared_instructions_as_little(  # type: ignore[no-untyped-def]
    world: tuple,  # type: ignore[type-arg]
    monkeypatch,
) -> None:
    from mmrerank.train import vlm_step

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
        said = [i for i, heavy in zip(ids, counts, strict=True) if heavy]
        found.setdefault(example.task, set()).update(encoder.tokenizer.convert_ids_to_tokens(said))
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
        told = [encoder.tokenizer.convert_ids_to_tokens(ids[column]) for column, _, _ in ends]
        closing, scored = told[: len(example.fits)], told[len(example.fits) :]
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
        for (text, end), (_, truth), (column, seen) in zip(
            ends, asked, encoder.named(example), strict=True
        ):
            assert seen == truth
            before = encoder.tokenizer.decode(ids[: column + 1])
            assert before.endswith(text[:end])
            # the word stands there, singular or plural, and what is asked of it is in the scene
            word = text[:end].split()[-1].split('"')[-1]
            kind = next(k for k in KINDS if word in (k, plural_of(k)))
            told = {w for w, v in zip(SHOWN, seen, strict=True) if v == 1.0}
            shown = [
                [t for t in scene.things if t.kind == kind]
                # a reply that grades names things of one image after the other
                for scene in (scenes if example.task == "grade" else scenes[-1:])
            ]
            assert any(
                (told == {"no"}) == (not things) and told <= _told(things) for things in shown
            )
    assert tasks == {"tell", "find", "name", "evaluate", "score", "grade"}


def _told(things: list) -> set[str]:  # type: ignore[type-arg]
    """All that may be told of ``things``, of which some may be meant."""
    words = {w for t in things for w in (t.colour, t.size, *_where(t))}
    inside = {"inside"} if any(t.inside is not None for t in things) else set()
    return words | inside | {"no"} | set(NUMBERS[1 : 1 + len(things)])


def _where(thing: Thing) -> tuple[str, str]:
    row, column = cell(thing.x, thing.y)
    return ROWS[row], COLUMNS[column]


def test_batches_made_in_other_processes_are_whole_and_differ(world: tuple) -> None:  # type: ignore[type-arg]
    _, exercises, encoder, _ = world
    source = supply(exercises, encoder, tokens=900, workers=2)
    first, second = next(source), next(source)  # a loader asks its workers in turn
    for batch in (first, second):
        assert batch.ids.shape == batch.labels.shape == batch.positions.shape[1:]
        assert (batch.labels != -100).any(1).all()
    assert first.ids.shape != second.ids.shape or not torch.equal(first.ids, second.ids)


def test_a_run_ends_by_steps_or_by_time() -> None:
    assert share_done(5, 10, 1e6, None) == 0.5
    assert share_done(5, 10, 45, 1.0) == 0.75
    assert share_done(10, 10, 0, 1.0) == 1


def test_pictures_of_one_size_attended_to_at_once_look_the_same(world: tuple) -> None:  # type: ignore[type-arg]
    pool, _, encoder, (model, _) = world
    grids = torch.tensor([[1, 12, 12]]).repeat(3, 1)
    patches = encoder.patches(torch.from_numpy(pool.pixels[:3]))
    with torch.no_grad():
        apart = model.model.get_image_features(patches, grids, return_dict=True).pooler_output
        batch_vision(model)
        together = model.model.get_image_features(patches, grids, return_dict=True).pooler_output
    assert torch.allclose(torch.cat(tuple(apart)), torch.cat(tuple(together)), atol=1e-5)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_fast_layers_are_as_near_to_float32_as_autocast_is(
    world: tuple,  # type: ignore[type-arg]
    compiled: bool,
) -> None:
    _, exercises, encoder, (_, processor) = world
    torch.manual_seed(3)
    model, _ = build(VlmShape(layers=2, vision_layers=1), processor.tokenizer)
    model.train()
    source = [
        next(batches(exercises, encoder, tokens)) for tokens in (900, 900, 1500, 1500, 200, 200)
    ]
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


def test_every_thing_is_named_by_some_token() -> None:
    rng = stream("train", 8)
    for _ in range(50):
        scene = sample_scene(rng, "train")
        assert (labels(scene, 6)[:, 0] > 0).sum() >= len(scene.things) - 1


def test_every_token_that_shows_a_thing_says_where_the_thing_is() -> None:
    rng = stream("train", 8)
    for _ in range(50):
        scene = sample_scene(rng, "train")
        where, covering = positions_of(scene, 6), shown(scene, 6)
        for number, thing in enumerate(scene.things, start=1):
            for token in np.flatnonzero(covering == number):
                row, column = cell(thing.x, thing.y)
                assert tuple(where[token]) == (row, column, 3 * row + column)


def _texts(example: object) -> list[str]:
    messages: tuple[Message, ...] = example.messages  # type: ignore[attr-defined]
    return ["".join(p.text or "" for p in m.parts) for m in messages] + [example.reply]  # type: ignore[attr-defined]


def _content(message: Message) -> list[dict[str, str]]:
    def piece(part: Part) -> dict[str, str]:
        return {"type": "image"} if part.text is None else {"type": "text", "text": part.text}

    return [piece(p) for p in message.parts]


def _png(pixels: np.ndarray) -> bytes:  # type: ignore[type-arg]
    import io

    from PIL import Image as Pillow

    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
