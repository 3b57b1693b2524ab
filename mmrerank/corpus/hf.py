"""Data sets of Hugging Face: a folder of this machine that the library `datasets` reads, or a hub's.

Images come through as they are stored and are decoded by `mmrerank.images` alone. The other columns become
metadata; names of classes stand for their numbers. A hub is asked only where a name was typed, and once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmrerank.corpus._columns import Layout, Reader, layout
from mmrerank.corpus._names import Again, numbered
from mmrerank.corpus._parquet import one_line
from mmrerank.corpus._rows import Column, Row
from mmrerank.corpus.table import allowed, fetched, told
from mmrerank.errors import InputError, MissingExtraError
from mmrerank.images.urls import Urls
from mmrerank.paths import expanded, is_windows_path
from mmrerank.ports import Corpus, Sample

FORM = "hf:FOLDER or hf:NAME of a data set, with :SPLIT behind it"
PREFIX = "hf:"
_SPLIT = re.compile(r"[\w.+-]+")
_HEAVY = ("Audio", "Video", "Pdf", "Nifti", "Mesh")
"""Features that the library would decode, and that say nothing here."""
_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class HfCorpus(Corpus):
    """The rows of ``data``, a split. ``root`` holds the files that rows name; made by `open`."""

    location: str
    data: Any = field(repr=False)
    root: Path
    columns: Layout
    classes: dict[str, Any] = field(default_factory=dict, repr=False)
    urls: Urls | None = None
    on_hub: bool = False
    _again: Again = field(default_factory=Again, compare=False, repr=False)

    def count(self) -> int | None:
        """The number of rows, where the library knows it without reading them."""
        import datasets

        return len(self.data) if isinstance(self.data, datasets.Dataset) else None

    def remarks(self) -> Sequence[str]:
        """Which column was taken where several would do, and ids that occur again."""
        return told(self.columns, self._again, self.location)

    def samples(self) -> Iterator[Sample]:
        """A sample for each row, in the data set's order. Of a hub's files the id is the last name alone."""
        vars(self._again).update(vars(Again()))
        reader = Reader(layout=self.columns, root=self.root, urls=self.urls is not None)
        found = fetched(self._rows(), reader, self.urls)
        return numbered((_short(s) for s in found) if self.on_hub else found, self._again)

    def _rows(self) -> Iterator[Row]:
        number = 0
        try:
            for values in self.data:
                for name, label in self.classes.items():
                    if isinstance(n := values.get(name), int) and 0 <= n < label.num_classes:
                        values[name] = label.int2str(n)
                yield Row(number=number, where=f"{self.location}, row {number} (from 0)", values=values)
                number += 1
        except (
            Exception
        ) as error:  # the library reads many kinds of files, and raises what their readers raise
            where = f"{self.location}, row {number} (from 0)"
            yield Row(number=number, where=where, error=f"the data set cannot be read on: {one_line(error)}")


def accepts(location: str) -> bool:
    """True for what begins with ``hf:``."""
    return location.startswith(PREFIX) and len(location) > len(PREFIX)


def open(
    location: str,
    *,
    allow_urls: bool | Urls = False,
    image_column: str = "",
    id_column: str = "",
    image_root: str | Path = "",
) -> HfCorpus:
    """The data set at ``location``: ``hf:FOLDER[:SPLIT]``, or ``hf:NAME[:SPLIT]`` on the hub.

    A folder was made by ``save_to_disk``, or holds Parquet files, or images as ``imagefolder`` has them.
    ``image_root`` is the folder of files that rows name, by default the data set's own. Raises `InputError`
    where there is no such data set, split or column of images, where the hub cannot be reached, and
    `MissingExtraError` without the library.
    """
    place, split = _parts(location.removeprefix(PREFIX))
    local = os.path.lexists(place)
    if not local and (place[:1] in "./~" or place.count("/") > 1 or is_windows_path(place)):
        raise InputError(f"there is no data set {place!r}")
    datasets = _library()
    found = _local(datasets, Path(os.path.abspath(place))) if local else _hub(datasets, place)  # noqa: PTH100
    data, split = _of_split(datasets, found, place, split)
    own = Path(os.path.abspath(place)) if local else Path(datasets.config.HF_CACHE_HOME)  # noqa: PTH100
    where = f"{PREFIX}{own if local else place}{f':{split}' if split else ''}"
    data, columns, classes, pictures = _plain(datasets, data)
    if not image_column and len(pictures) == 1:
        image_column = pictures[0]
    return HfCorpus(
        location=where,
        data=data,
        root=Path(os.path.abspath(expanded(image_root))) if image_root else own,  # noqa: PTH100
        columns=layout(where, columns, image=image_column, id_=id_column),
        classes=classes,
        urls=allowed(allow_urls),
        on_hub=not local,
    )


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(
            "data sets of Hugging Face need the library datasets: pip install 'mmrerank[hf]'"
        ) from error
    return datasets


def _parts(rest: str) -> tuple[str, str]:
    """The folder or name, and the split behind it."""
    place = str(expanded(rest)) if rest.startswith("~") else rest
    before, colon, split = place.rpartition(":")
    if os.path.lexists(place) or not (colon and before and _SPLIT.fullmatch(split)):
        return place, ""
    return before, split


def _local(datasets: Any, folder: Path) -> Any:
    saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        if saved:
            return datasets.load_from_disk(str(folder))
        # read where it lies: otherwise the library would copy all of it into its cache
        return datasets.load_dataset(str(folder), streaming=True)
    except Exception as error:  # as in `HfCorpus._rows`
        raise InputError(f"{str(folder)!r} cannot be read as a data set: {one_line(error)}") from error


def _hub(datasets: Any, name: str) -> Any:
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if not constants.HF_HUB_OFFLINE:
            HfApi().dataset_info(name, timeout=_SECONDS)  # once: the library would try for a minute
        return datasets.load_dataset(name)
    except HfHubHTTPError as error:
        raise InputError(f"the hub has no data set {name!r} for you: {one_line(error)}") from error
    except Exception as error:  # as in `HfCorpus._rows`
        raise InputError(
            f"the data set {name!r} cannot be had: {one_line(error)}\n"
            f"{_way(constants.HF_HUB_OFFLINE)}\n"
            f"A folder of this machine: {PREFIX}FOLDER, made by save_to_disk or with Parquet files in it"
        ) from error


def _way(offline: bool) -> str:
    if offline:
        return "Downloads are off: unset HF_HUB_OFFLINE, or have the data set downloaded before"
    return "A copy that was downloaded before: set HF_HUB_OFFLINE=1"


def _of_split(datasets: Any, found: Any, place: str, split: str) -> tuple[Any, str]:
    """One split of what was found, and its name."""
    if not isinstance(found, dict):
        if split:
            raise InputError(f"{place!r} has no splits: leave out {':' + split!r}")
        return found, ""
    names = list(found)
    if split and split not in names:
        raise InputError(f"{place!r} has no split {split!r}; it has {', '.join(names)}")
    if not split and len(names) != 1:
        raise InputError(
            f"{place!r} has the splits {', '.join(names)}: name one, as {PREFIX}{place}:{names[0]}"
        )
    # a data set of one split is the same one whether it was named or not
    return found[split or names[0]], split if len(names) > 1 else ""


def _plain(datasets: Any, data: Any) -> tuple[Any, list[Column], dict[str, Any], list[str]]:
    """The data with its images undecoded: the data, its columns, those of classes, and those of images."""
    features = data.features
    if features is None:  # files whose types nobody has looked at yet
        first: dict[str, Any] = next(iter(data), {})
        return data, [Column(name=n, kind=type(v).__name__) for n, v in first.items()], {}, []
    pictures = [n for n, f in features.items() if isinstance(f, datasets.Image)]
    heavy = [n for n, f in features.items() if any(h in repr(f) for h in _HEAVY) or _listed(datasets, f)]
    data = data.remove_columns(heavy) if heavy else data
    for name in pictures:
        data = data.cast_column(name, datasets.Image(decode=False))
    classes = {n: f for n, f in features.items() if isinstance(f, datasets.ClassLabel)}
    columns = [Column(name=n, kind=type(f).__name__) for n, f in features.items() if n not in heavy]
    return data, columns, classes, pictures


def _listed(datasets: Any, feature: Any) -> bool:
    """Whether images lie inside a list or a structure, where they would be decoded."""
    return not isinstance(feature, datasets.Image) and "Image(" in repr(feature)


def _short(sample: Sample) -> Sample:
    return replace(sample, id=sample.id.rpartition("/")[2] or sample.id)
