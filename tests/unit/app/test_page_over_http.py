"""The running page, attacked as a program would: other files, other sessions, other sites, other routes."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from page_server import FORM, META, Noted, Visitor, running

from mmrerank.errors import ChatError
from mmrerank.types import Image
from mmrerank_app.limits import PageLimits
from mmrerank_app.uploads import REFUSED


@pytest.fixture(scope="module", autouse=True)
def looking() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmrerank_app.work.LOOK_EVERY", 0.05)
        yield


@pytest.fixture(scope="module")
def search() -> Noted:
    return Noted(questions=50, pause=0.02)


@pytest.fixture(scope="module")
def address(search: Noted) -> Iterator[str]:
    with running(search, PageLimits(upload_mb=0.1, waiting=1), allow_hosts=["photos.example.org"]) as place:
        yield place


@pytest.fixture
def visitor(address: str) -> Visitor:
    return Visitor(address)


def test_the_image_input_takes_uploads_of_this_session_and_nothing_else(
    visitor: Visitor, address: str, search: Noted, picture: Callable[..., Image], tmp_path: Path
) -> None:
    mine = picture().read()
    name = visitor.upload(mine)
    assert visitor.http.get(f"/gradio_api/file={name}").content == mine
    search.queries.clear()
    assert REFUSED not in visitor.search_with({"path": name, "meta": META, "url": "http://127.0.0.1:1/x"})
    assert [q.images[0].read() for q in search.queries] == [mine]

    outside = tmp_path / "outside.png"
    outside.write_bytes(mine)
    other = Visitor(address)
    search.queries.clear()
    attempts: list[tuple[Visitor, dict[str, Any]]] = [
        (visitor, {"path": str(outside)}),  # without meta Gradio looks at no folder
        (visitor, {"path": str(outside), "meta": META}),
        (visitor, {"path": str(outside), "orig_name": "x.svg"}),  # for this ending it opens nothing
        (visitor, {"path": "/etc/passwd", "orig_name": "x.svg"}),
        (visitor, {"path": str(tmp_path / "missing.png")}),
        (visitor, {"path": f"{name}/../{name}"}),
        (visitor, {"path": f"../{name}"}),
        (visitor, {"path": name + ".svg"}),
        (visitor, {"path": name + "\0"}),
        (visitor, {"path": "http://127.0.0.1:1/x.png", "meta": META}),
        (visitor, {"path": "", "url": "data:image/png;base64,aGk="}),
        (visitor, {"path": {"path": name}}),
        (visitor, {"path": 7}),
        (visitor, {"file": name}),
        (other, {"path": name, "meta": META}),
    ]
    told = set()
    for who, image in attempts:
        events = json.loads(who.search_with(image))
        (ended,) = (e["output"]["data"][0] for e in events if e["msg"] == "process_completed")
        told.add(ended)
    assert len(told) == 1  # nothing tells what is there
    assert REFUSED in told.pop()
    for wrong in ("/etc/passwd", [name], 5):
        assert "passwd" not in visitor.search_with(wrong)
    assert not search.queries
    for path in (name, "/etc/passwd", "http://127.0.0.1:1/", str(outside)):
        assert other.http.get(f"/gradio_api/file={path}").status_code == 404


def test_a_link_in_the_folder_of_uploads_leads_nowhere(
    visitor: Visitor, picture: Callable[..., Image]
) -> None:
    import gc

    from mmrerank_app.uploads import Uploads

    name = visitor.upload(picture().read())
    kept = [u for u in gc.get_objects() if type(u) is Uploads and u._root is not None]
    (file,) = (f for u in kept for f in (u._root or Path()).rglob(name))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.parent.stat().st_mode & 0o777 == 0o700
    file.unlink()
    file.symlink_to("/etc/passwd")
    assert REFUSED in visitor.search_with({"path": name, "meta": META})
    assert visitor.http.get(f"/gradio_api/file={name}").status_code == 404


def test_other_names_and_other_sites_are_refused(visitor: Visitor, address: str) -> None:
    port = address.rpartition(":")[2]
    for host in (f"localhost:{port}", f"[::1]:{port}", "photos.example.org", "PHOTOS.example.org:443"):
        assert visitor.http.get("/config", headers={"Host": host}).status_code == 200, host
    evil = (
        "evil.example",
        f"127.0.0.1.evil.example:{port}",
        "localhost@evil.example",
        "192.168.1.7",
        "0x7f.1",
        "",
    )
    for host in evil:
        assert visitor.http.get("/config", headers={"Host": host}).status_code in (400, 403), host
        forwarded = visitor.http.get("/config", headers={"X-Forwarded-Host": host or "-"})
        assert forwarded.status_code == 403, host
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        f"http://evil.example@127.0.0.1:{port}",
    ):
        assert visitor.join(FORM, "one", Origin=origin).status_code == 403, origin
        preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        told = visitor.http.options("/gradio_api/queue/join", headers=preflight)
        assert told.status_code == 403
        assert "access-control-allow-origin" not in told.headers
    assert visitor.join(FORM, "two", **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    body = json.dumps({"data": FORM, "fn_index": visitor.fn_index, "session_hash": "three"})
    plain = visitor.http.post("/gradio_api/queue/join", content=body, headers={"Content-Type": "text/plain"})
    assert plain.status_code == 415  # what a form of another site can send without asking
    assert visitor.join(FORM, "four", Origin=address).status_code == 200
    visitor.events("four")


def test_only_the_routes_of_the_page_are_open(visitor: Visitor) -> None:
    api = "/gradio_api"
    for path in (
        f"{api}/proxy=http://127.0.0.1:1/", f"{api}/deep_link?session_hash=x", "/monitoring/summary",
        f"{api}/stream/a/b/1/playlist-file", f"{api}/run-history/buckets", f"{api}/openapi.json", "/docs",
        f"{api}/custom_component/a/client/b/c", f"{api}/file/etc/passwd", f"{api}/mcp/", "/pwa_icon/9",
        "/logout",
        "/static/..%2f..%2froutes.py", "/assets/../../routes.py", "/assets/%00",
    ):  # fmt: skip
        assert visitor.http.get(path).status_code == 404, path
    call = {"data": FORM, "session_hash": "x"}
    for path in (f"{api}/run/run", f"{api}/api/run", f"{api}/call/run", f"{api}/component_server", "/login"):
        assert visitor.http.post(path, json=call).status_code == 404, path
    page = visitor.http.get("/?deep_link=x&page=none")
    assert page.status_code == 200
    assert "frame-ancestors 'self'" in page.headers["content-security-policy"]
    for text in (page.text, visitor.http.get("/config").text, visitor.http.get(f"{api}/info").text):
        assert str(Path.cwd()) not in text
        assert "/srv/" not in text


def test_payloads_that_no_browser_sends(visitor: Visitor) -> None:
    post = visitor.http.post
    join, json_type = "/gradio_api/queue/join", {"content-type": "application/json"}
    assert post(join, content=b"[" * 100_000, headers=json_type).status_code == 400
    assert post(
        join, content=b'{"data": [NaN], "fn_index": 0, "session_hash": "x"}', headers=json_type
    ).is_error
    assert post(join, json={"data": FORM, "fn_index": 999, "session_hash": "x"}).status_code == 404
    assert post(join, json={"data": FORM, "fn_index": "0", "session_hash": "x"}).status_code == 400
    for session in ("x" * 99, "", "a<gradio-sep>b", "a_b", "\u0661"):
        assert post(join, json={"data": FORM, "fn_index": 0, "session_hash": session}).status_code == 400
    told = post(join, json={"data": ["x" * 400_000], "fn_index": 0, "session_hash": "x"})
    assert told.status_code == 413
    assert "--limit body_kb=N" in told.text
    for form, why in (
        (["x" * 40_000, *FORM[1:]], "40000 characters, and 2000 are allowed"),
        ([*FORM[:3], 10**9, *FORM[4:]], "1 to 100 are allowed"),
        ([*FORM[:2], 51, *FORM[3:]], "1 to 50 are allowed"),
        ([*FORM[:2], "9", *FORM[3:]], "a whole number is needed"),
        ([*FORM[:2], True, *FORM[3:]], "a whole number is needed"),
        ([FORM[0], ["none"], *FORM[2:]], "choose a method"),
        ([{"a": 1}, *FORM[1:]], "a text is needed"),
        ([*FORM[:7], "a\n" * 2000], "4000 characters"),
    ):
        assert why in visitor.search(form)


def test_an_upload_that_is_too_large_is_refused_and_not_kept(visitor: Visitor) -> None:
    for data in (b"\0" * 110_000, b"\0" * 9_000_000):
        told = visitor.http.post("/gradio_api/upload", files={"files": ("big.png", data, "image/png")})
        assert told.status_code == 413
        assert "--limit upload_mb=N" in told.text
    two = [("files", ("a.png", b"a")), ("files", ("b.png", b"b"))]
    assert visitor.http.post("/gradio_api/upload", files=two).status_code == 400
    assert visitor.http.post("/gradio_api/upload", content=b"no form").status_code == 400


def test_a_visitor_who_leaves_stops_the_questions_and_nobody_else_can(
    visitor: Visitor, address: str, search: Noted
) -> None:
    slow = [FORM[0], "listwise", *FORM[2:]]
    session = uuid.uuid4().hex
    event = visitor.join(slow, session).json()["event_id"]
    other = Visitor(address)
    cancel = {"session_hash": session, "fn_index": visitor.fn_index, "event_id": event}
    assert other.http.post("/gradio_api/cancel", json=cancel).status_code == 404
    told = other.http.get("/gradio_api/queue/data", params={"session_hash": session})
    assert told.status_code == 404
    search.asked = 0
    visitor.events(session, until=lambda e: "questions answered" in json.dumps(e))  # and the connection ends
    time.sleep(0.4)
    after = search.asked
    time.sleep(0.2)
    assert 0 < search.asked == after < 40


def test_a_full_line_is_told_that_the_page_is_busy(visitor: Visitor) -> None:
    slow = [FORM[0], "listwise", *FORM[2:]]
    told = [visitor.join(slow, "crowd").status_code for _ in range(4)]
    assert 503 in told
    assert told[0] == 200
    visitor.events("crowd", until=lambda e: True)  # leaves, with all that was in line


def test_the_documentation_names_every_limit_with_its_default() -> None:
    page = (Path(__file__).parents[3] / "docs/web-page.md").read_text("utf-8")
    for name, value in vars(PageLimits()).items():
        assert f"| `{name}` | {value:g} |" in page


def test_errors_name_no_place_of_this_machine(
    visitor: Visitor, search: Noted, caplog: pytest.LogCaptureFixture
) -> None:
    home = str(Path.home())
    try:
        search.fails = ChatError(f"cannot read '/srv/my photographs/b.jpg' with {home}/models/vl: gone")
        shown = visitor.search(FORM)
        assert "b.jpg" in shown
        assert "gone" in shown
        search.fails = RuntimeError(f"{home}/secret")
        shown += visitor.search(FORM)
    finally:
        search.fails = None
    assert "its log has the reason" in shown
    for place in ("/srv", "photographs", home + os.sep, "secret"):
        assert place not in shown
    assert "/srv/my photographs/b.jpg" in caplog.text
    assert f"{home}/secret" in caplog.text


def test_a_client_of_gradio_searches_with_an_image(address: str, search: Noted, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file
    from PIL import Image as Pillow

    Pillow.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    search.queries.clear()
    client = Client(address, verbose=False)
    try:
        client.predict(
            "a boat", "none", 5, 5, handle_file(str(tmp_path / "mine.png")), "", "", "", api_name="/run"
        )
    finally:
        client.close()
    assert [q.images[0].read() for q in search.queries] == [(tmp_path / "mine.png").read_bytes()]


def test_a_request_that_never_ends_is_given_up() -> None:
    from starlette.testclient import TestClient

    from mmrerank_app.gate import Gate
    from mmrerank_app.hosts import Hosts
    from mmrerank_app.uploads import Uploads

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("reached")

    gate = Gate(behind, hosts=Hosts(allow=["testserver"]), uploads=Uploads(PageLimits(body_seconds=0.05)))

    def slowly() -> Iterator[bytes]:
        yield b"{"
        time.sleep(0.3)
        yield b"}"

    client = TestClient(gate)
    assert client.get("/nothing").status_code == 404
    assert httpx.codes.is_error(
        client.post(
            "/gradio_api/cancel", content=slowly(), headers={"content-type": "application/json"}
        ).status_code
    )
