from __future__ import annotations

import io

import pytest

from mmrerank.errors import InputError, UsageError
from mmrerank_app.limits import PageLimits
from mmrerank_app.uploads import REFUSED, Uploads, new_session, owner_of, reference


def save(uploads: Uploads, owner: str, data: bytes, name: str = "a.png") -> str:
    return reference(owner, uploads.save(owner, io.BytesIO(data), name))


def test_an_upload_is_read_by_its_reference_only() -> None:
    uploads, mine, other = Uploads(), owner_of(new_session()), owner_of(new_session())
    first = save(uploads, mine, b"one", "../../etc/a.PNG")
    assert uploads.read(first) == b"one"
    assert first.endswith(".png")
    assert uploads.read(save(uploads, mine, b"two", "page.html")) == b"two"  # an unknown ending is left out
    save(uploads, other, b"three")
    name = first.partition("/")[2]
    for wrong in (
        "",
        name,
        f"{other}/{name}",
        f"{mine}/../{first}",
        f"{mine}/x",
        first + "\n",
        "/etc/passwd",
    ):
        with pytest.raises(InputError, match=REFUSED):
            uploads.read(wrong)


def test_an_upload_that_is_too_large_leaves_nothing() -> None:
    uploads, mine = Uploads(PageLimits(upload_mb=0.001)), owner_of(new_session())
    with pytest.raises(UsageError, match="--limit upload_mb=N"):
        save(uploads, mine, b"x" * 1001)
    assert uploads._root is not None
    assert not [f for f in uploads._root.rglob("*") if f.is_file()]


def test_the_oldest_give_way_and_time_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    uploads, mine = Uploads(PageLimits(uploads_mb=0.0125, upload_minutes=1)), owner_of(new_session())
    names = [save(uploads, mine, bytes([n]) * 5000) for n in range(4)]
    for gone in names[:2]:
        with pytest.raises(InputError):
            uploads.read(gone)
    assert uploads.read(names[2]) == b"\2" * 5000
    import time

    now = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now + 61)
    uploads.expire()
    root = uploads._root
    assert root is not None
    assert not list(root.iterdir())
    uploads.close()
    assert not root.exists()


def test_empty_uploads_take_room_too() -> None:
    uploads, mine = Uploads(PageLimits(uploads_mb=0.01)), owner_of(new_session())
    names = [save(uploads, mine, b"") for _ in range(50)]
    assert sum(_there(uploads, name) for name in names) == 2
    uploads.close()


def _there(uploads: Uploads, name: str) -> bool:
    try:
        return uploads.read(name) == b""
    except InputError:
        return False
