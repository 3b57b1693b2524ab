"""The model hub is looked at once: where it does not answer, an error of three lines says what to do."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmrerank import hub
from mmrerank.errors import ModelError, UsageError


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a person has it: nothing forbids asking the hub, and nobody has asked yet."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_known", None)
    yield
    hub._known = None


def fetch() -> None:
    from huggingface_hub import hf_hub_download

    with hub.asked("the model x", hub.copied("org/x", "--x FOLDER")):
        hf_hub_download("nobody/nothing-of-the-kind", "config.json")


@pytest.mark.usefixtures("online")
def test_a_hub_that_is_not_there_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with socket.socket() as nobody:  # a port at which nothing listens
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        asked: list[int] = []
        real = hub._asked
        monkeypatch.setattr(hub, "_asked", lambda: asked.append(1) or real())
        begun = time.monotonic()
        for _ in range(2):
            with pytest.raises(ModelError) as error:
                fetch()
        assert len(asked) == 1
        assert time.monotonic() - begun < 15  # its own client tries for half a minute
    first, second, third = str(error.value).splitlines()
    assert first == "the model x is not on this machine"
    assert second.startswith("the model hub huggingface.co cannot be reached: ")
    assert "run the same again" in third
    assert "`hf download org/x --local-dir FOLDER`" in third
    assert not constants.HF_HUB_OFFLINE  # as it was


@pytest.mark.usefixtures("online")
def test_a_hub_that_never_answers_costs_a_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(hub, "_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        assert hub.out_of_reach()
        assert time.monotonic() - begun < 2


def test_what_forbids_asking_is_named() -> None:
    assert hub.out_of_reach() == "HF_HUB_OFFLINE is set"
    with pytest.raises(ModelError, match="is not asked: HF_HUB_OFFLINE is set"), hub.asked("it", "way"):
        raise OSError("not in the cache")


def test_errors_of_ours_and_what_is_in_the_cache_pass() -> None:
    with hub.asked("it", "way"):
        pass
    with pytest.raises(UsageError, match="ours"), hub.asked("it", "way"):
        raise UsageError("ours")


@pytest.mark.usefixtures("online")
def test_a_hub_that_refuses_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_asked", str)
    with pytest.raises(ModelError, match=r"did not give it: no such repository\ncheck the name, or way"):  # noqa: SIM117
        with hub.asked("it", "way"):
            raise OSError("no such repository")


def test_the_cache_is_looked_at_without_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--org--name/snapshots/abc"
    place.mkdir(parents=True)
    (place / "config.json").touch()
    assert not hub.holds("org/name")
    (place / "model.safetensors").touch()
    assert hub.holds("org/name")
    assert hub.holds("org/name@abc")
