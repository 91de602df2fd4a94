"""Where a webhook may lead: every way to write or to reach an address that is not the public internet's."""

import socket

import pytest

from apps.pool.webhooks.destination import AddressRefused, Found, checked, is_public, url_faults

PRIVATE = [
    "127.0.0.1", "127.255.0.3", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.5.4", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1",
    "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "100::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808", "2002:7f00:1::", "2002:808:808::", "2001:0:4136:e378::1", "no address",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8",
    "93.184.215.14",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_address__not_of_the_public_internet__refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_address__public__allowed(address: str) -> None:
    assert is_public(address)


def found(*addresses: str) -> Found:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]


def test_name__one_of_its_addresses_is_private__refused_whole() -> None:
    with pytest.raises(AddressRefused):
        checked(found("8.8.8.8", "10.0.0.1"), allow_private=False)
    assert checked(found("8.8.8.8", "10.0.0.1"), allow_private=True) == found("8.8.8.8", "10.0.0.1")
    assert checked(found("8.8.8.8", "1.1.1.1"), allow_private=False) == found("8.8.8.8", "1.1.1.1")


@pytest.mark.parametrize(
    "url",
    [
        "http://bff.example/events",
        "ftp://bff.example/",
        "//bff.example/",
        "bff.example",
        "https://",
        "https:///events",
        "https://user:password@bff.example/",
        "https://bff.example@127.0.0.1/",
        "https://bff.example/#fragment",
        "https://bff.example/#",
        "https://bff.example:22/",
        "https://bff.example:25/",
        "https://bff.example:0/",
        "https://bff.example:99999/",
        "https://bff.example:x/",
        "https://bff.example\\@127.0.0.1/",
        "https://bff.example/\r\nX-Header: 1",
        "https://bff .example/",
        "https://bücher.example/",
        "https://localhost/",
        "https://localhost./",
        "https://api.localhost/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0x7f.1/",
        "https://2130706433/",
        "https://017700000001/",
        "https://10.0.0.1:8443/",
        "https://169.254.169.254/latest/meta-data/",
        "https://metadata.google.internal/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
    ],
)
def test_url__of_a_place_that_nothing_is_sent_to__refused_with_its_fault(url: str) -> None:
    assert url_faults(url, allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        "https://bff.example",
        "https://bff.example/events?of=staking",
        "https://bff.example:443/",
        "https://BFF.example:8443/a%20b",
        "https://xn--bcher-kva.example/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]/",
    ],
)
def test_url__public__taken(url: str) -> None:
    assert url_faults(url, allow_private=False) == []


def test_url__private_ones_allowed__http_and_private_taken_but_no_user_and_no_low_port() -> None:
    for url in ("http://10.0.0.7:8000/events", "http://localhost:9000/", "https://bff.internal/", "http://[::1]:3000/"):
        assert url_faults(url, allow_private=True) == [], url
    for url in ("http://user@10.0.0.7/", "http://10.0.0.7:22/", "file:///etc/passwd", "gopher://10.0.0.7:6379/"):
        assert url_faults(url, allow_private=True), url
