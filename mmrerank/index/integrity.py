"""Looks through the whole database of an index for what is not as it was written. Repairs nothing."""

from __future__ import annotations

from collections.abc import Iterator

from mmrerank.errors import ImageIndexError
from mmrerank.index.fields import Tally
from mmrerank.index.paging import pages
from mmrerank.index.record import METADATA, values, wrapped
from mmrerank.index.records import Record, Records

_PAGE = 500
_REBUILD = "index the source again with --rebuild"
_LAWS = {
    "records name a vector that there is not": "records WHERE row NOT IN (SELECT row FROM vectors)",
    "records name the vector of another image": (
        "records JOIN vectors USING (row) WHERE records.sha256 IS NOT vectors.sha256"
    ),
    "vectors are not numbered one by one": (
        "(SELECT min(row) AS low, max(row) AS high, count(*) AS n FROM vectors) "
        "WHERE low <> 0 OR high <> n - 1"
    ),
}


def integrity(records: Records) -> Iterator[Record | str]:
    """Every record that is as it was written, and everything else that is wrong, in words."""
    try:
        before = records.state
        yield from (f"{records.path}: {r[0]}" for r in records.ask("PRAGMA integrity_check") if r[0] != "ok")
        for what, sql in _LAWS.items():
            if count := int(records.ask_one(f"SELECT count(*) FROM {sql}")):
                yield f"{records.path} is damaged: {count} {what}; {_REBUILD}"
        with records.snapshot():
            counted = records.tally(records.state)
        again = Tally(only=counted.names)
        count, total = 0, 0
        found = pages(records.path, lambda last: records.raw("WHERE seq > ?", [last], limit=_PAGE))
        for number, fields, sum_ in found:
            try:
                record = records.checked(number, fields, sum_)
                if record.row is not None:
                    again.add(values(record)[METADATA])
                yield record
                count, total = count + 1, wrapped(total + sum_)
            except ImageIndexError as error:
                yield str(error)
        # while somebody writes, pages are of different moments
        if before != records.state:
            return
        if (before.records, before.total) != (count, total):
            yield (
                f"{records.path} is damaged: {count} records are as they were written, of {before.records}; "
                f"{_REBUILD}"
            )
        elif not again.same(counted):
            yield f"{records.path} is damaged: its count of columns is not that of its records; {_REBUILD}"
    except ImageIndexError as error:
        yield str(error)
