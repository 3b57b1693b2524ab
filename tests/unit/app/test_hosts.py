from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrerank.errors import UsageError
from mmrerank_app.hosts import Hosts, host_name


def test_a_page_at_all_addresses_answers_under_numbers_and_not_under_names() -> None:
    hosts = Hosts("0.0.0.0", allow=["Photos.example.org"])
    for name in ("localhost:7860", "192.168.1.7:7860", "[fe80::1]:7860", "photos.example.org"):
        assert hosts.allows(name), name
    for name in ("evil.example", "192.168.1.7.evil.example", "1921681007", "photos.example.org.evil.example"):
        assert not hosts.allows(name), name
    assert hosts.same_site("https://photos.example.org", "127.0.0.1:7860")  # of a proxy that changes the name
    assert not hosts.same_site("http://192.168.1.8", "192.168.1.7")


def test_the_given_address_is_a_name_and_every_name_is_a_choice() -> None:
    assert Hosts("box.lan").allows("BOX.lan:7860")
    assert not Hosts("box.lan").allows("other.lan")
    assert Hosts(allow=["*"]).allows("anything.example")
    with pytest.raises(UsageError, match="--allow-host takes a host name"):
        Hosts(allow=["https://photos.example.org/x"])


@settings(max_examples=25)
@given(st.text(max_size=12))
def test_whatever_follows_a_loopback_name_is_another_name(more: str) -> None:
    authority = f"localhost{more}"
    if Hosts().allows(authority):
        assert host_name(authority) == "localhost"
        assert not more.strip().strip(".0123456789:")
