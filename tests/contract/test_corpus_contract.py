"""What every corpus plug-in promises: unique and stable ids, readable samples, an honest location."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from contract_specs import contract_specs

from mmrerank import registry
from mmrerank.corpus import open_corpus
from mmrerank.errors import InputError
from mmrerank.images import decode
from mmrerank.ports import Corpus

NAMES = ["b.png", "sub/a.png", "sub/c.png"]


def _files(root: Path) -> Path:
    for number, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (5, 4), (number * 90, 0, 0)).save(root / name)
    return root


def _folder(root: Path) -> Corpus:
    corpus: Corpus = registry.load("corpus", "folder").open(str(_files(root)))
    return corpus


def _embeddings(root: Path) -> Corpus:
    _files(root)
    np.save(root / "v.npy", np.eye(len(NAMES), 7, dtype=np.float32))
    (root / "ids.jsonl").write_text("".join(json.dumps({"image": n}) + "\n" for n in NAMES))
    corpus: Corpus = registry.load("corpus", "embeddings").open(
        str(root), vectors=root / "v.npy", ids=root / "ids.jsonl"
    )
    return corpus


def _webdataset(root: Path) -> Corpus:
    with tarfile.open(root / "s.tar", "w") as shard:
        for name in NAMES:
            data = (_files(root / "files") / name).read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    corpus: Corpus = registry.load("corpus", "webdataset").open(str(root / "s.tar"))
    return corpus


def _table(root: Path) -> Corpus:
    _files(root)
    lines = [{"path": name, "number": n} for n, name in enumerate(NAMES)]
    (root / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus: Corpus = registry.load("corpus", "table").open(str(root / "t.jsonl"))
    return corpus


def _hf(root: Path) -> Corpus:
    import datasets

    _files(root)
    cells = {"path": NAMES, "image": [str(root / n) for n in NAMES], "id": NAMES}
    datasets.disable_progress_bars()
    saved = datasets.Dataset.from_dict(cells).cast_column("image", datasets.Image())
    saved.save_to_disk(str(root / "saved"))
    corpus: Corpus = registry.load("corpus", "hf").open(f"hf:{root / 'saved'}")
    return corpus


def _named(root: Path, spec: str) -> Corpus:
    """A foreign source, at what ``MMRERANK_CONTRACT`` says; its list of files is made here."""
    (_files(root) / "list.txt").write_text("".join(f"{n}\n" for n in NAMES))
    return open_corpus(spec.replace("{folder}", str(root)))


# A new plug-in adds a line that makes it hold the three images of NAMES.
MAKERS: dict[str, Callable[[Path], Corpus]] = {
    "embeddings": _embeddings,
    "folder": _folder,
    "hf": _hf,
    "table": _table,
    "webdataset": _webdataset,
    **{name: partial(_named, spec=spec) for name, spec in contract_specs("corpus").items()},
}


SLOW = {"hf"}
"""Those that import a library which takes seconds."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in registry.names("corpus")]
)
def test_contract(name: str, tmp_path: Path) -> None:
    assert name in MAKERS, f"say in MAKERS how an example of the corpus {name!r} is made"
    corpus = MAKERS[name](tmp_path)
    samples = list(corpus.samples())
    ids = [sample.id for sample in samples]
    assert ids == [sample.id for sample in corpus.samples()]
    assert len(ids) == len(set(ids)) == len(NAMES)
    for number, sample in enumerate(samples):
        sample.id.encode()
        assert sample.error == ""
        assert sample.image is not None
        json.dumps(dict(sample.metadata))
        picture = decode(sample.image)
        assert picture.size == (5, 4)
        assert picture.getpixel((0, 0)) == (number * 90, 0, 0)
        assert len(sample.image.digest) == 64
    place = corpus.location.removeprefix("hf:")
    assert Path(place).is_absolute()


@pytest.mark.parametrize("name", registry.names("corpus"))
def test_accepts_answers_and_a_missing_source_is_named(name: str, tmp_path: Path) -> None:
    plugin = registry.load("corpus", name)
    missing = str(tmp_path / "nowhere.tar")
    assert isinstance(plugin.accepts(missing), bool)
    extra = {"vectors": "v.npy", "ids": "i.jsonl"} if name == "embeddings" else {}
    with pytest.raises(InputError, match="nowhere"):
        plugin.open(missing, **extra)
