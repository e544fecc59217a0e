"""Only public hosts are asked for pages."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.web_rules import WebRules, is_public, matches_domain

PLAIN = {"scheme": "https", "host": "example.org", "port": 443, "has_credentials": False}


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2001::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "100::1",
        "no address",
        "",
        "2130706433",
    ],
)
def test_what_is_not_of_the_public_internet_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111"])
def test_what_is_public_is(address):
    assert is_public(address)


@given(st.ip_addresses(v=4, network="0.0.0.0/0"))
def test_no_ipv4_address_becomes_public_by_being_written_in_ipv6(address):
    number = int(address)
    for network in ("::ffff:0:0", "::", "64:ff9b::"):
        hidden = ipaddress.IPv6Address(int(ipaddress.IPv6Address(network)) + number)
        assert not is_public(str(hidden))
    assert not is_public(str(ipaddress.IPv6Address((0x2002 << 112) + (number << 80))))
    assert not (is_public(str(address)) and (address.is_private or address.is_multicast))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"scheme": "http", "port": 80}, None),
        ({"scheme": "file"}, "http"),
        ({"scheme": "gopher"}, "http"),
        ({"host": ""}, "no host"),
        ({"port": 22}, "port 22"),
        ({"port": 8080}, "port 8080"),
        ({"has_credentials": True}, "credentials"),
        ({"host": "127.0.0.1"}, "public"),
        ({"host": "::1"}, "public"),
        ({"host": "8.8.8.8"}, None),
    ],
)
def test_an_address_is_judged_as_it_is_written(change, problem):
    found = WebRules().problem(**{**PLAIN, **change})
    assert found is None if problem is None else problem in found


def test_domains_can_be_allowed_and_denied_with_all_below_them():
    rules = WebRules(allowed_domains=("example.org",), denied_domains=("bad.example.org",))
    judged = {
        host: rules.problem(**{**PLAIN, "host": host}) is None
        for host in (
            "example.org",
            "WWW.Example.org.",
            "bad.example.org",
            "very.bad.example.org",
            "notexample.org",
            "example.org.evil.net",
        )
    }
    assert [host for host, allowed in judged.items() if allowed] == [
        "example.org",
        "WWW.Example.org.",
    ]
    assert matches_domain("a.b", ("b",))
    assert not matches_domain("ab", ("b",))


def test_a_private_host_is_one_only_with_its_port():
    rules = WebRules(private_hosts=frozenset({"wiki.intranet", "127.0.0.1:8080"}))
    assert rules.problem(**{**PLAIN, "host": "wiki.intranet"}) is None
    assert rules.problem(**{**PLAIN, "host": "wiki.intranet", "port": 22})
    assert rules.problem(**{**PLAIN, "host": "127.0.0.1", "port": 8080}) is None
    assert rules.problem(**{**PLAIN, "host": "127.0.0.1", "port": 80})
    assert rules.problem(**{**PLAIN, "host": "127.0.0.1", "port": 8080, "has_credentials": True})
