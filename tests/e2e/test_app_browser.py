"""The page in a real browser: a search is typed, the result appears, nothing but loopback is asked.

Set MMRERANK_SCREENSHOT=FILE.png to keep a picture of the page after the search.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
         "--no-first-run", "--disable-component-update"]  # fmt: skip


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; install the package chromium to run the page test")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "app.log").open("wb")
    home = Path(os.environ.get("MMRERANK_APP_HOME", tmp_path))
    server = subprocess.Popen(
        [sys.executable, "-m", "mmrerank", "demo", "app", "--port", str(port), "--no-browser"],
        cwd=home, stdout=log, stderr=log,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert server.poll() is None, (tmp_path / "app.log").read_text("utf-8")
            try:
                urllib.request.urlopen(url, timeout=2).close()
                break
            except OSError:
                time.sleep(1)
        yield url
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def test_a_search_in_the_browser(address: str) -> None:
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1500})
        page.on("request", lambda r: asked.append(r.url))
        page.goto(address)
        page.fill("#query textarea, #query input", "a red boat at the beach")
        page.click("#go")
        page.wait_for_selector("#result >> text=After: cotrr", timeout=240_000)
        assert page.locator("#result figure img").count() >= 20
        assert page.locator("[role=alert]").count() == 0
        if file := os.environ.get("MMRERANK_SCREENSHOT"):
            page.wait_for_timeout(1000)
            page.screenshot(path=file)
        page.set_viewport_size({"width": 390, "height": 900})
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    hosts = {urlsplit(u).hostname for u in asked if u.startswith("http")}
    assert hosts == {"127.0.0.1"}
