"""What people hand in: images of every kind, strings that mean pictures, and what is of a wrong type."""

from __future__ import annotations

import http.server
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mmrerank import Budget, Candidate, Image, ImageSearch, Query, Ranking, Reranker, SearchResult, combine
from mmrerank.errors import ImageError, UsageError
from mmrerank.images import decode
from mmrerank.images.urls import Urls, fetch
from mmrerank.inputs import looks_like_picture, to_candidate, to_image, to_query, to_ranking
from mmrerank.limits import within


def png(side: int = 4) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (side, side), (200, 10, 10)).save(file, "png")
    return file.getvalue()


PIXELS = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize(
    "array",
    [
        PIXELS,
        PIXELS[..., 0],
        PIXELS[..., :1],
        PIXELS / 255.0,
        np.dstack([PIXELS, np.full((4, 5), 255, np.uint8)]),
    ],
)
def test_arrays_are_images(array: Any) -> None:
    seen = np.asarray(decode(to_image(array)), int)
    wanted = np.broadcast_to(PIXELS[..., :1], (4, 5, 3)) if array.ndim == 2 or array.shape[2] == 1 else PIXELS
    assert seen.shape == (4, 5, 3)
    assert np.abs(seen - wanted).max() <= 1


@pytest.mark.parametrize(
    "array", [PIXELS.astype(np.int32), PIXELS.astype(float), PIXELS[None], np.zeros((0, 3)), PIXELS[..., :2]]
)
def test_an_array_that_is_no_image_says_what_one_is(array: Any) -> None:
    with pytest.raises(UsageError, match="an array of shape"):
        to_image(array)


def test_bytes_of_every_kind_and_single_images() -> None:
    for data in (png(), bytearray(png()), memoryview(png())):
        assert decode(to_image(data)).size == (4, 4)
    for one in (PIL.Image.new("RGB", (4, 4)), PIXELS, png(), Image(data=png()), Path("x.jpg")):
        assert len(to_query("redder", one).images) == 1


def test_what_is_given_beside_a_query_is_added_to_it() -> None:
    query = Query(text="a dog", images=(Image(data=b"1"),), exclude=("people",))
    found = to_query(query, [png()], "cars")
    assert [i.data for i in found.images] == [b"1", png()]
    assert found.exclude == ("people", "cars")
    assert to_query(query) is query


@pytest.mark.parametrize(
    ("text", "picture"),
    [
        ("boat.jpg", True), ("photos/my boat.PNG", True), (r"C:\me\boat.webp", True), ("./a.tiff", True),
        ("https://example.org/boat", True), ("file:///x.jpg", True), ("data:image/png;base64,AA", True),
        ("a boat", False), ("save it as boat.jpg", False), ("see https://example.org/ for boats", False),
        ("boat.jpeg\nand more", False), ("", False), ("e.g. a boat", False), ("3.5 png", False),
    ],
)  # fmt: skip
def test_a_string_that_names_a_picture_is_refused_with_the_way_on(text: str, picture: bool) -> None:
    assert looks_like_picture(text) is picture
    if not picture:
        return
    with pytest.raises(UsageError, match=r"pathlib.Path|allow_urls"):
        to_candidate(text, "0")
    with pytest.raises(UsageError, match=r"Query\(text="):
        to_query(text)
    assert to_candidate({"text": text}, "0").text == text
    assert Query(text=text).text == text


WRONG: list[Any] = [None, 5, 2.5, Ellipsis, [1], {"x": 1}, b"\0", ("a", "b")]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_a_wrong_type_is_a_usage_error(wrong: Any) -> None:
    reranker, texts = Reranker("pointwise", "oracle"), ["a", "b"]
    calls: list[Any] = [
        lambda: reranker.rank(wrong, texts),
        lambda: reranker.rank("x", 5 if isinstance(wrong, list | tuple) else wrong),
        lambda: reranker.rank_batch([wrong] if wrong != ("a", "b") else wrong),
        lambda: reranker.rank("x", texts, cancel=5 if wrong is None else wrong),
        lambda: reranker.rank("x", texts, on_event="5" if wrong is None else wrong),
        lambda: Reranker(wrong, "oracle"),
        lambda: Reranker("pointwise", 5 if wrong is None else wrong),
        lambda: Reranker("pointwise", "oracle", budget=5 if wrong is None else wrong),
        lambda: to_image(5 if isinstance(wrong, bytes) else wrong),
        lambda: to_query("x", exclude=[5]),
        lambda: to_ranking([5 if isinstance(wrong, bytes) else wrong]),
        lambda: ImageSearch(wrong),
        lambda: combine(wrong),
        lambda: Ranking(5 if isinstance(wrong, list | tuple) else wrong),
        lambda: Candidate(id="x", text="x", metadata=5 if isinstance(wrong, dict) else wrong),
        lambda: Budget(calls="5" if wrong is None or isinstance(wrong, int | float) else wrong),
        lambda: SearchResult.load({5} if isinstance(wrong, bytes) else wrong),
        lambda: ImageSearch.open({5} if isinstance(wrong, str) else wrong),
    ]
    for call in calls:
        with pytest.raises(UsageError):
            call()


def test_values_check_their_own_types() -> None:
    for call in (
        lambda: Query(text="x", exclude="people"),  # type: ignore[arg-type]
        lambda: Query(text="x", turns="first"),  # type: ignore[arg-type]
        lambda: Query(images=(Path("x.jpg"),)),  # type: ignore[arg-type]
        lambda: Candidate(id=5, text="x"),  # type: ignore[arg-type]
        lambda: Candidate(id="5", text=5),  # type: ignore[arg-type]
        lambda: Candidate(id="5", image=Path("x")),  # type: ignore[arg-type]
        lambda: Image(path="x.jpg"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match="is "):
            call()


# ---------------------------------------------------------------- addresses


class Pictures(http.server.BaseHTTPRequestHandler):
    """Serves a picture, redirects, and what nobody wants."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/") or "/to/")
            self.end_headers()
            return
        body = {"/ok": png(), "/large": b"x" * 5000, "/slow": b"x" * 100}.get(self.path)
        self.send_response(200 if body else 404)
        if self.path != "/slow":
            self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        for byte in body or b"":
            if self.path == "/slow":
                time.sleep(0.05)
                self.wfile.write(bytes([byte]))
        if self.path != "/slow":
            self.wfile.write(body or b"")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


HERE = Urls(private=True, seconds=5)


def test_an_address_is_fetched_only_where_it_is_allowed(address: str) -> None:
    with pytest.raises(UsageError, match="allow_urls=True"):
        to_image(f"{address}/ok")
    with pytest.raises(ImageError, match=r"no public address; allow_urls=Urls\(private=True\)"):
        to_image(f"{address}/ok", allow_urls=True)
    image = to_image(f"{address}/ok", allow_urls=HERE)
    assert (decode(image).size, image.url) == ((4, 4), f"{address}/ok")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/no", "404"), ("/to//to//to//to//ok", "redirects"), ("/to/file:///etc/passwd", "only http"),
        ("/to/http://127.0.0.1:9/x", "cannot be fetched"), ("/large", "larger than 1,000 bytes"),
    ],
)  # fmt: skip
def test_what_cannot_be_fetched_says_why(address: str, path: str, why: str) -> None:
    with within(url_bytes=1000), pytest.raises(ImageError, match=why):
        fetch(address + path, HERE)
    assert fetch(f"{address}/to//ok", HERE) == png()


def test_a_slow_server_is_left(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(ImageError, match="took too long|timed out"):
        fetch(f"{address}/slow", Urls(private=True, seconds=0.2))
    assert time.monotonic() - began < 2


PRIVATE = [
    "127.0.0.1",
    "localhost",
    "[::1]",
    "10.0.0.1",
    "169.254.169.254",
    "[::ffff:127.0.0.1]",
    "[fe80::1]",
]


@pytest.mark.parametrize("host", [*PRIVATE, "0.0.0.0", "192.168.1.1"])
def test_private_addresses_are_never_connected(host: str) -> None:
    with pytest.raises(ImageError, match=r"no public address|cannot be fetched"):
        fetch(f"http://{host}:9/x.png", Urls(seconds=1))


def test_a_candidate_that_cannot_be_fetched_costs_its_own_place(address: str) -> None:
    urls = [f"{address}/ok", f"{address}/no"]
    ranking = to_ranking([*urls, {"id": "third", "image": urls[1]}], allow_urls=HERE)
    assert ranking.ids == (*urls, "third")
    with pytest.raises(ImageError, match="404"):
        decode(ranking.candidates[1].image)  # type: ignore[arg-type]
    result: SearchResult = Reranker("none").rank("a boat", urls, allow_urls=HERE)
    assert result.to_dict()["hits"][0]["image"] == urls[0]
