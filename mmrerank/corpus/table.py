"""A table with a column of images: CSV, TSV, JSON lines or Parquet. The other columns become metadata.

An image is a path below the table's folder, bytes, base64, or an address where addresses are allowed. The id
is that of an id column, else the path, else the row's number. A row that cannot be used becomes a sample with
an error that names it; the others go on. Nothing is held but the ids and the row at hand.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmrerank.corpus._columns import Layout, Reader, layout
from mmrerank.corpus._csv import Csv
from mmrerank.corpus._jsonl import Jsonl
from mmrerank.corpus._names import Again, numbered
from mmrerank.corpus._parquet import Parquet
from mmrerank.corpus._rows import Row, Table
from mmrerank.errors import ImageError, InputError
from mmrerank.images.urls import Urls, fetch
from mmrerank.paths import expanded, looked_at
from mmrerank.ports import Corpus, Sample
from mmrerank.types import Image

FORM = "TABLE.csv, .tsv, .jsonl or .parquet with a column of images"
KINDS: dict[str, Callable[[Path], Table]] = {
    ".csv": Csv, ".tsv": Csv, ".jsonl": Jsonl, ".ndjson": Jsonl, ".parquet": Parquet, ".pq": Parquet,
}  # fmt: skip
"""The readers by the suffix of a table."""
_FETCHED = 16
"""Images that are fetched at once, and at most wait for the reader."""


@dataclass(frozen=True, kw_only=True)
class TableCorpus(Corpus):
    """The rows of ``table``, whose image paths are below ``root``. ``urls`` says what may be fetched."""

    location: str
    table: Table
    root: Path
    columns: Layout
    urls: Urls | None = None
    _again: Again = field(default_factory=Again, compare=False, repr=False)

    def count(self) -> int | None:
        """The number of rows, where the file says it."""
        return self.table.count()

    def remarks(self) -> Sequence[str]:
        """Which column was taken where several would do, and ids that occur again."""
        return told(self.columns, self._again, self.location)

    def samples(self) -> Iterator[Sample]:
        """A sample for each row, in order. Addresses are fetched some at a time, each within its limits."""
        vars(self._again).update(vars(Again()))
        reader = Reader(
            layout=self.columns, root=self.root, origin=Path(self.location), urls=self.urls is not None
        )
        return numbered(fetched(self.table.rows(), reader, self.urls), self._again)


def accepts(location: str) -> bool:
    """True for a file that is called like a table."""
    return _suffix(location) in KINDS and os.path.isfile(location)  # noqa: PTH113 - as `Path.is_file` raises


def open(
    location: str,
    *,
    allow_urls: bool | Urls = False,
    image_column: str = "",
    id_column: str = "",
    image_root: str | Path = "",
) -> TableCorpus:
    """The table at ``location``; its columns are found by their names, or are those that are named.

    ``image_root`` is the folder of the paths, by default the table's own. Raises `InputError` where the table
    cannot be read, or lacks a column: its message names those that are there. Raises `MissingExtraError` for
    Parquet without pyarrow.
    """
    path = Path(os.path.abspath(expanded(location)))  # noqa: PTH100 - `resolve` would follow links
    with looked_at(location, "the table"):
        if not path.is_file():
            raise InputError(f"there is no table {location!r}")
    kind = KINDS.get(_suffix(location))
    if kind is None:
        raise InputError(f"{location!r} is no table: {', '.join(KINDS)} are read")
    table = kind(path)
    root = Path(os.path.abspath(expanded(image_root))) if image_root else path.parent  # noqa: PTH100
    return TableCorpus(
        location=str(path),
        table=table,
        root=root,
        columns=layout(str(location), table.columns(), image=image_column, id_=id_column),
        urls=allowed(allow_urls),
    )


def allowed(allow_urls: bool | Urls) -> Urls | None:
    """What may be fetched; None for nothing."""
    return allow_urls if isinstance(allow_urls, Urls) else Urls() if allow_urls else None


def told(columns: Layout, again: Again, location: str) -> tuple[str, ...]:
    """What a person should know of a table: which column was taken, and which ids occur again."""
    found = [columns.remark] if columns.remark else []
    if again.count:
        found.append(
            f"{again.count:,} rows of {location} have the id of a row before, such as {again.first!r}; they "
            f"are in the index as {again.first + '#2'!r} and so on"
        )
    return tuple(found)


def fetched(rows: Iterator[Row], reader: Reader, urls: Urls | None) -> Iterator[Sample]:
    """The samples of ``rows`` in order, with the images that are at addresses."""
    if urls is None:
        for row in rows:
            yield reader.sample(row)[0]
        return
    waiting: deque[Future[Sample]] = deque()
    with ThreadPoolExecutor(_FETCHED, thread_name_prefix="fetch") as pool:
        try:
            for row in rows:
                sample, address = reader.sample(row)
                waiting.append(pool.submit(_with_image, sample, address, row.where, urls))
                if len(waiting) >= _FETCHED:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _with_image(sample: Sample, address: str, where: str, urls: Urls) -> Sample:
    if not address:
        return sample
    try:
        return replace(sample, image=Image(data=fetch(address, urls), url=address))
    except ImageError as error:
        return replace(sample, error=f"{where}: {error}")


def _suffix(location: str) -> str:
    return os.path.splitext(location)[1].lower()  # noqa: PTH122 - no Path a file
