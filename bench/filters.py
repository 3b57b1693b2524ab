"""Seconds of filters over an index of many records with metadata: made records, two-dimensional vectors.

python bench/filters.py --records 1000000 --folder /tmp/filters
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np

from mmrerank.filters.filter import Filter
from mmrerank.index.filtering import Filtering
from mmrerank.index.record import Record
from mmrerank.index.records import Records

CAMERAS = ["Google Pixel 7", "Canon EOS R5", "NIKON D750", "Apple iPhone 14", "SONY ILCE-7M3", None]
FILTERS = [
    "taken >= 2024",
    "taken >= 2012",
    "taken = 2024-06-01",
    'camera ~ "pixel"',
    'camera = "NIKON D750"',
    "width >= 4000",
    'path ~ "/12"',
    "per < 10",
    "per < 100",
    "per < 500",
    'species = "species 7"',
    'species ~ "7"',
    "wild = true",
    "seen >= 2024-06",
    'tags = "tag 3"',
    "gbif.key < 5000",
    "has note",
    'taken >= 2024-06-01 and camera ~ "Pixel" and species = "species 7"',
    'not (species = "species 7" or per < 500)',
]


def day(rng: random.Random) -> str:
    """A day of fifteen years."""
    return f"20{rng.randrange(10, 25)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"


def record(number: int, rng: random.Random) -> Record:
    """A made record with the metadata of an occurrence."""
    metadata = {
        "species": f"species {rng.randrange(1000)}",
        "per": rng.randrange(1000),
        "wild": rng.random() < 0.5,
        "seen": day(rng),
        "tags": [f"tag {rng.randrange(20)}" for _ in range(3)],
        "gbif": {"key": number, "dataset": "made"},
        "note": "seen from a boat" if rng.random() < 0.1 else None,
    }
    return Record(
        id=f"{number % 100}/{number}.jpg",
        path=f"{number % 100}/{number}.jpg".encode(),
        sha256=f"{number:064x}",
        size=rng.randrange(10**7),
        mtime_ns=number,
        ctime_ns=number,
        width=rng.choice([1024, 4000, 6000]),
        height=3000,
        taken=f"{day(rng)}T10:{rng.randrange(60):02}:00",
        camera=rng.choice(CAMERAS),
        metadata=metadata,
        row=number,
    )


def make(folder: Path, count: int) -> None:
    """Fills the database, in portions as an import does."""
    rng = random.Random(0)
    records = Records(folder, write=True)
    vectors = np.ones((10_000, 2), dtype=np.float32)
    start = time.process_time()
    for first in range(0, count, 10_000):
        with records.transaction():
            rows = range(first, min(first + 10_000, count))
            records.add_vectors(first, [f"{n:064x}" for n in rows], vectors[: len(rows)])
            for number in rows:
                records.put(record(number, rng))
    took = time.process_time() - start
    size = (folder / "records.sqlite").stat().st_size
    each, megabytes = 1e6 * took / count, size / 1e6
    print(f"{count:,} records written in {took:.1f} CPU s ({each:.0f} us each), {megabytes:.0f} MB")
    records.close()


def main() -> None:
    """Makes the database where there is none, and asks each filter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    if not (args.folder / "records.sqlite").exists():
        args.folder.mkdir(parents=True, exist_ok=True)
        make(args.folder, args.records)
    records = Records(args.folder)
    rows = []
    for text in FILTERS:
        filtering, where = Filtering(records), Filter.parse(text)
        start, cpu = time.perf_counter(), time.process_time()
        kept = len(filtering.rows(where))
        rows.append(
            {
                "filter": text,
                "kept": kept,
                "seconds": round(time.perf_counter() - start, 3),
                "cpu": round(time.process_time() - cpu, 3),
            }
        )
        print(f"{rows[-1]['cpu']:7.3f} CPU s {rows[-1]['seconds']:7.3f} s {kept:9,} kept  {text}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
