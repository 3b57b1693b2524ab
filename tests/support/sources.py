"""The same pictures in every kind of source, and a server of this machine that hands out files."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mmrerank.corpus import folder, open_corpus
from mmrerank.images.urls import Urls
from mmrerank.ports import Corpus


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """The address of a server that hands out the files below ``root``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def files_of(root: Path) -> dict[str, bytes]:
    """The files below ``root`` by their POSIX paths."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def _tar(root: Path, to: Path) -> Path:
    with tarfile.open(to, "w") as tar:
        for name, data in files_of(root).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return to


def _folder(root: Path, made: Path) -> Corpus:
    return open_corpus(root)


def _list(root: Path, made: Path) -> Corpus:
    names = "\n".join(str(root / name) for name in files_of(root))
    return folder.open("-", listing=names.encode())


def _plain_tar(root: Path, made: Path) -> Corpus:
    return open_corpus(_tar(root, made / "s.tar"))


def _packed_tar(root: Path, made: Path) -> Corpus:
    (made / "s.tar.gz").write_bytes(gzip.compress(_tar(root, made / "plain.tar").read_bytes()))
    return open_corpus(made / "s.tar.gz")


def _piped_tar(root: Path, made: Path) -> Corpus:
    return open_corpus(f"pipe:cat '{_tar(root, made / 's.tar')}'")


def _csv(root: Path, made: Path) -> Corpus:
    with (made / "photos.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "number"])
        writer.writerows([name, n] for n, name in enumerate(files_of(root)))
    return open_corpus(made / "photos.csv", kind="table", image_root=root)


def _jsonl(root: Path, made: Path) -> Corpus:
    lines = [{"id": n, "image": base64.b64encode(d).decode()} for n, d in files_of(root).items()]
    (made / "photos.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return open_corpus(made / "photos.jsonl")


def parquet(path: Path, columns: Mapping[str, list[Any]], **options: Any) -> Path:
    """Writes a Parquet file of ``columns``."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), path, **options)
    return path


def _parquet_bytes(root: Path, made: Path) -> Corpus:
    files = files_of(root)
    return open_corpus(parquet(made / "p.parquet", {"id": list(files), "bytes": list(files.values())}))


def _parquet_struct(root: Path, made: Path) -> Corpus:
    files = files_of(root)
    cells = [{"bytes": data, "path": name} for name, data in files.items()]
    return open_corpus(parquet(made / "p.parquet", {"id": list(files), "image": cells}))


def _parquet_path(root: Path, made: Path) -> Corpus:
    place = parquet(made / "p.parquet", {"path": list(files_of(root))})
    return open_corpus(place, kind="table", image_root=root)


def _saved(root: Path, made: Path) -> Corpus:
    import datasets

    rows = {"id": list(files_of(root)), "image": [str(root / name) for name in files_of(root)]}
    data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    datasets.disable_progress_bars()
    data.save_to_disk(str(made / "saved"))
    return open_corpus(f"hf:{made / 'saved'}")


def _hf_parquet(root: Path, made: Path) -> Corpus:
    (made / "set").mkdir()
    _parquet_struct(root, made / "set")
    return open_corpus(f"hf:{made / 'set'}")


def _image_folder(root: Path, made: Path) -> Corpus:
    return open_corpus(f"hf:{root}")


Maker = Callable[[Path, Path], Corpus]
SOURCES: dict[str, tuple[Maker, str]] = {
    "folder": (_folder, "path"),
    "list": (_list, "file"),
    "tar": (_plain_tar, "key"),
    "tar.gz": (_packed_tar, "key"),
    "pipe": (_piped_tar, "key"),
    "csv": (_csv, "path"),
    "jsonl-base64": (_jsonl, "path"),
    "parquet-bytes": (_parquet_bytes, "path"),
    "parquet-struct": (_parquet_struct, "path"),
    "parquet-path": (_parquet_path, "path"),
}
"""What puts the pictures below a folder into a source, and what its ids are."""
HF_SOURCES: dict[str, tuple[Maker, str]] = {
    "hf-saved": (_saved, "path"),
    "hf-parquet": (_hf_parquet, "path"),
    "hf-imagefolder": (_image_folder, "path"),
}
"""The same of those that import the library `datasets`, which takes seconds."""


def remote(root: Path, made: Path, address: str) -> Corpus:
    """A shard at ``address``, where the files below ``made`` are served."""
    _tar(root, made / "s.tar")
    return open_corpus(f"{address}/s.tar", allow_urls=True)


def addresses(root: Path, made: Path, address: str) -> Corpus:
    """A table of the addresses of the files below ``root``, which are served."""
    lines = [{"id": name, "url": f"{address}/{name}"} for name in files_of(root)]
    (made / "urls.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return open_corpus(made / "urls.jsonl", allow_urls=Urls(private=True))
