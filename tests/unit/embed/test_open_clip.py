"""The open_clip plug-in on a tiny model written here: loading, refusing, fingerprints, queries, batches."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mmrerank.embed import _open_clip_part
from mmrerank.embed._mix import decoded
from mmrerank.embed._open_clip_part import suffices
from mmrerank.embed.open import open_embedder
from mmrerank.embed.overlong import overlong
from mmrerank.errors import ImageError, ModelError, UsageError
from mmrerank.ports import Embedder
from mmrerank.types import Image, Query

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic"}


def write_tiny_clip(folder: Path, *, seed: int = 0, **preprocess: Any) -> Path:
    """A tiny model with random weights in the format of an open_clip checkpoint folder."""
    import torch
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": TINY, "preprocess_cfg": {**PREPROCESS, **preprocess}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = {k: v.contiguous() for k, v in CLIP(**TINY).state_dict().items()}
    save_file(state, str(folder / "open_clip_model.safetensors"))
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


@pytest.fixture(scope="module")
def tiny(tiny_clip: Path) -> Embedder:
    return open_embedder(f"open_clip:local-dir:{tiny_clip}")


def pictures(count: int, size: tuple[int, int] = (40, 30)) -> list[PIL.Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (count, size[1], size[0], 3), dtype=np.uint8)
    return [PIL.Image.fromarray(pixels) for pixels in noise]


def test_importing_the_plug_in_imports_no_heavy_package() -> None:
    code = (
        "import sys, mmrerank.embed.open_clip, mmrerank.embed.open, mmrerank.index.index\n"
        "assert not {'torch', 'open_clip', 'faiss', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_it_meets_the_port(tiny: Embedder) -> None:
    assert isinstance(tiny, Embedder)
    assert tiny.dim == 24
    assert tiny.domain == ""
    vectors = tiny.embed_images(pictures(3))
    assert vectors.shape == (3, 24)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    assert tiny.embed_images([]).shape == (0, 24)
    assert tiny.embed_queries([]).shape == (0, 24)


def test_a_batch_gives_what_single_images_give(tiny_clip: Path) -> None:
    small = open_embedder(f"open_clip:local-dir:{tiny_clip}", batch_size=4)
    images = pictures(9)
    together = small.embed_images(images)
    alone = np.concatenate([small.embed_images([i]) for i in images])
    assert together == pytest.approx(alone, abs=1e-5)
    words = [Query(text=f"{n} red dogs") for n in range(6)]
    each = np.concatenate([small.embed_queries([q]) for q in words])
    assert small.embed_queries(words) == pytest.approx(each, abs=1e-5)


def test_two_devices_give_what_one_gives(tiny_clip: Path) -> None:
    spec = f"open_clip:local-dir:{tiny_clip}"
    one, two = (open_embedder(spec, device=d, batch_size=3) for d in ("cpu", "cpu,cpu"))
    assert (one.portion, two.portion) == (3, 6)
    images = pictures(11)
    assert np.array_equal(two.embed_images(images), one.embed_images(images))
    words = [Query(text=f"{n} red dogs") for n in range(7)]
    assert np.array_equal(two.embed_queries(words), one.embed_queries(words))


def test_prepared_images_give_the_same_vectors(tiny: Any) -> None:
    images = pictures(3)
    prepared = [tiny.prepare(i) for i in images]
    assert np.array_equal(tiny.embed_images(prepared), tiny.embed_images(images))


def test_a_very_long_image_is_cropped_before_it_is_enlarged(tiny: Any) -> None:
    long = PIL.Image.new("RGB", (1, 20_000), "teal")
    assert tiny.prepare(long).shape == (3, 32, 32)
    wide = pictures(1, size=(64, 10))[0]  # within the limit: exactly what open_clip does
    own = tiny._transform.normalised(tiny.prepare(wide)[None])
    assert np.array_equal(own[0], tiny._transform(wide))


def test_the_fingerprint_follows_weights_and_preprocessing(tmp_path: Path, tiny: Embedder) -> None:
    def fingerprint(name: str, **options: Any) -> str:
        folder = write_tiny_clip(tmp_path / name, **options)
        return open_embedder(f"open_clip:local-dir:{folder}").fingerprint

    assert fingerprint("copy") == tiny.fingerprint
    others = [
        fingerprint("weights", seed=1),
        fingerprint("mean", mean=[0.4, 0.5, 0.5]),
        fingerprint("resize", resize_mode="squash"),
        fingerprint("interpolation", interpolation="bilinear"),
    ]
    assert len({tiny.fingerprint, *others}) == 5


def test_the_fingerprint_does_not_depend_on_precision(tiny_clip: Path, tiny: Embedder) -> None:
    half = open_embedder(f"open_clip:local-dir:{tiny_clip}", precision="bfloat16")
    assert half.fingerprint == tiny.fingerprint
    images = pictures(2)
    likeness = (half.embed_images(images) * tiny.embed_images(images)).sum(axis=1)
    assert likeness.min() > 0.995


def test_the_spec_holds_an_absolute_path(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_clip.parent)
    assert open_embedder("open_clip:local-dir:tiny-clip").spec == f"open_clip:local-dir:{tiny_clip}"


def test_queries_mix_words_and_images(tiny: Any, tmp_path: Path) -> None:
    picture = pictures(1)[0]
    picture.save(tmp_path / "a.png")
    image = Image(path=tmp_path / "a.png")
    text, seen, both, dialogue, without = tiny.embed_queries(
        [
            Query(text="a red dog"),
            Query(images=(image,)),
            Query(text="a red dog", images=(image,)),
            Query(text="a red dog", turns=("an animal",)),
            Query(text="a red dog", exclude=("a cat",)),
        ]
    )
    assert seen == pytest.approx(tiny.embed_images([picture])[0], abs=1e-5)
    mean = (text + seen) / np.linalg.norm(text + seen)
    assert both == pytest.approx(mean, abs=1e-5)
    assert dialogue == pytest.approx(tiny.embed_texts(["an animal, a red dog"])[0], abs=1e-5)
    less = text - 0.5 * tiny.embed_texts(["a cat"])[0]
    assert without == pytest.approx(less / np.linalg.norm(less), abs=1e-5)


def test_the_share_of_the_words_can_be_set(tiny_clip: Path, tiny: Any, tmp_path: Path) -> None:
    pictures(1)[0].save(tmp_path / "a.png")
    query = Query(text="a red dog", images=(Image(path=tmp_path / "a.png"),))
    words_only = open_embedder(f"open_clip:local-dir:{tiny_clip}", text_weight=1.0)
    expected = tiny.embed_texts(["a red dog"])
    assert words_only.embed_queries([query]) == pytest.approx(expected, abs=1e-5)


def test_long_text_is_cut_not_refused(tiny: Embedder) -> None:
    assert np.isfinite(tiny.embed_queries([Query(text="a very long tale " * 400)])).all()


def test_what_is_cut_is_counted(tiny: Embedder) -> None:
    # the model reads 16 tokens, two of which mark the beginning and the end
    assert tiny.overlong("red " * 14) is None
    assert tiny.overlong("red " * 15) == (17, 16)
    assert tiny.overlong("red " * 398) == (400, 16)
    assert tiny.overlong("!" * 4) is None
    assert overlong(tiny, Query(text="red")) == []
    (warning,) = overlong(tiny, Query(text="red", turns=("red " * 20,)))
    # the comma between the turns is a token
    assert warning.startswith(f"the query has 24 tokens, and {tiny.spec} reads the first 16")


def test_random_weights_say_so_and_are_always_the_same() -> None:
    spec = "open_clip:test-tiny:random"
    import open_clip.factory

    open_clip.factory._MODEL_CONFIGS["test-tiny"] = TINY
    try:
        first, second = open_embedder(spec), open_embedder(spec)
    finally:
        del open_clip.factory._MODEL_CONFIGS["test-tiny"]
    assert first.domain == "random weights: for plumbing and speed only"
    assert first.spec == spec
    assert first.fingerprint == second.fingerprint
    assert np.array_equal(first.embed_images(pictures(2)), second.embed_images(pictures(2)))


def test_loading_prints_nothing_and_leaves_logging_alone(
    tiny_clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers, filters = list(logging.root.handlers), list(logging.root.filters)
    open_embedder(f"open_clip:local-dir:{tiny_clip}")
    assert capfd.readouterr() == ("", "")
    assert (logging.root.handlers, logging.root.filters) == (handlers, filters)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "open_clip_config.json").unlink(), "no open_clip_config.json"),
        (lambda f: (f / "open_clip_config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "open_clip_config.json").write_text('{"model_cfg": {}}'), "embed_dim"),
        (lambda f: (f / "open_clip_config.json").write_text("[]"), "cannot be read"),
        (lambda f: (f / "open_clip_model.safetensors").unlink(), "holds no weights"),
        (lambda f: (f / "open_clip_model.safetensors").write_bytes(b"12345678x"), "cannot be loaded"),
    ],
)
def test_a_broken_folder_is_refused(tmp_path: Path, damage: Any, says: str) -> None:
    folder = write_tiny_clip(tmp_path / "m")
    damage(folder)
    with pytest.raises(ModelError, match=says):
        open_embedder(f"open_clip:local-dir:{folder}")


def test_weights_must_fit_completely(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_tiny_clip(tmp_path / "m")
    weights = folder / "open_clip_model.safetensors"
    state = load_file(weights)
    del state["text_projection"]
    save_file(state, str(weights))
    with pytest.raises(ModelError, match="text_projection"):
        open_embedder(f"open_clip:local-dir:{folder}")


def test_a_named_tokenizer_must_be_in_the_folder(tmp_path: Path) -> None:
    folder = write_tiny_clip(tmp_path / "m")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "somebody/tokenizer"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="somebody/tokenizer"):
        open_embedder(f"open_clip:local-dir:{folder}")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("open_clip:local-dir:/no/such/folder", "no model folder /no/such/folder"),
        ("open_clip:ViT-B32:random", "did you mean ViT-B-32"),
        ("open_clip:ViT-B-32:opena", "there are: openai"),
        ("open_clip:ViT-B-32", "ARCH:TAG"),
        ("open_clip:", "ARCH:TAG"),
    ],
)
def test_a_wrong_name_says_what_there_is(spec: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        open_embedder(spec)


def test_an_unreachable_hub_names_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"(?s)HF_HUB_OFFLINE is set.*hf download timm.*local-dir:FOLDER"):
        open_embedder("open_clip:ViT-B-32-quickgelu:metaclip_400m")


@pytest.mark.parametrize(
    ("name", "quick"), [("ViT-B-32:openai", True), ("ViT-B-32:laion2b_s34b_b79k", False)]
)
def test_weights_trained_with_quickgelu_get_it(
    name: str, quick: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "weights").write_bytes(b"x")
    asked: dict[str, Any] = {}

    def create(arch: str, **options: Any) -> None:
        asked.update(options)
        raise RuntimeError("far enough")

    monkeypatch.setattr("open_clip.pretrained.download_pretrained", lambda facts: str(tmp_path / "weights"))
    monkeypatch.setattr("open_clip.factory.create_model", create)
    with pytest.raises(ModelError, match="far enough"):
        open_embedder(f"open_clip:{name}")
    assert asked["force_quick_gelu"] is quick
    assert asked["require_pretrained"] is True


def test_an_image_of_a_query_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (tmp_path / "dog.jpg").write_bytes(b"no image")
    PIL.Image.new("RGB", (4, 3)).save(tmp_path / "cat.png")
    images = tuple(Image(path=tmp_path / name) for name in ("cat.png", "dog.jpg"))
    with pytest.raises(ImageError, match=r"^image 2 of the query \(.*/dog\.jpg\): the content is"):
        decoded(Query(images=images))
    with pytest.raises(ImageError, match="^image 1 of the query: the file is empty"):
        decoded(Query(images=(Image(data=b""),)))


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"text_weight": 2.0}, {"precision": "int4"}, {"colour": "red"}]
)
def test_wrong_options(tiny_clip: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        open_embedder(f"open_clip:local-dir:{tiny_clip}", **options)


def test_an_unknown_embedder_lists_the_forms() -> None:
    with pytest.raises(UsageError, match=r"open_clip:ARCH:TAG.*bundled"):
        open_embedder("clip")


@pytest.mark.slow
def test_a_text_needs_neither_torchvision_nor_timm_nor_transformers(tiny_clip: Path) -> None:
    code = (
        "import sys\n"
        "from mmrerank.embed.open import open_embedder\n"
        "from mmrerank.types import Query\n"
        "embedder = open_embedder(sys.argv[1])\n"
        "assert embedder.embed_queries([Query(text='a dog')]).shape == (1, 24)\n"
        "heavy = {'torchvision', 'timm', 'transformers', 'torch._dynamo', 'open_clip', 'sympy'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    command = [sys.executable, "-c", code, f"open_clip:local-dir:{tiny_clip}"]
    subprocess.run(command, check=True, timeout=120)


def test_a_part_of_open_clip_gives_what_the_whole_gives(
    tiny_clip: Path, tiny: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert type(tiny._model).__module__ == "open_clip.model"  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "open_clip")
    part: Any = open_embedder(f"open_clip:local-dir:{tiny_clip}")
    assert type(part._model).__module__ == "_mmrerank_open_clip.model"
    assert part.fingerprint == tiny.fingerprint
    queries = [Query(text="a red dog", exclude=("a cat",)), Query(text="word " * 99)]
    assert np.array_equal(part.embed_queries(queries), tiny.embed_queries(queries))
    images = [*pictures(2), *pictures(1, size=(300, 20))]
    assert np.array_equal(part.embed_images(images), tiny.embed_images(images))


def test_models_with_foreign_towers_get_the_whole_of_open_clip() -> None:
    text: dict[str, Any] = {"context_length": 16}
    assert suffices({"vision_cfg": {}, "text_cfg": text})
    assert not suffices({"vision_cfg": {"timm_model_name": "vit"}, "text_cfg": text})
    assert not suffices({"vision_cfg": {}, "text_cfg": {"hf_model_name": "bert"}})
    assert not suffices({"vision_cfg": {}, "text_cfg": text, "multimodal_cfg": {}})


def test_what_is_left_out_raises_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "open_clip")
    preprocess = _open_clip_part.part().PreprocessCfg()
    transform = sys.modules["_mmrerank_open_clip.transform"]
    with pytest.raises(RuntimeError, match="is left out here"):
        transform.image_transform_v2(preprocess, is_train=False)


def test_an_open_clip_that_cannot_be_imported_in_part_is_imported_whole_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import open_clip

    monkeypatch.delitem(sys.modules, "open_clip")
    names = {**_open_clip_part._NAMES, "transform": ("NewName",)}

    def functions(package: str) -> Any:
        if package != "open_clip":
            raise ImportError("NewName")
        monkeypatch.setitem(sys.modules, "open_clip", open_clip)
        return names

    monkeypatch.setattr(_open_clip_part, "_functions", functions)
    assert _open_clip_part.part() is names
    assert "cannot be imported in part (ImportError: NewName)" in caplog.text
