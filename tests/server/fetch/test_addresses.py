"""Which addresses a fetch may connect to; the blocks are those of IANA's registries of special-purpose addresses."""

from __future__ import annotations

import pytest

from dimml_server.fetch.addresses import is_global

#: Of RFC 6890 and its successors, by https://www.iana.org/assignments/iana-ipv4-special-registry: "globally reachable"
#: is false, or the block is multicast, or it means something else where the server runs.
NOT_GLOBAL_V4 = [
    "0.0.0.0", "0.255.255.255",  # noqa: S104 - this network
    "10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255",  # private
    "100.64.0.0", "100.127.255.255", "100.100.100.200",  # shared by carriers; a cloud's metadata
    "127.0.0.1", "127.255.255.255",  # loopback
    "169.254.0.0", "169.254.169.254", "169.254.255.255",  # link-local, and most clouds' metadata
    "192.0.0.0", "192.0.0.8", "192.0.0.192", "192.0.0.255",  # IETF protocol assignments
    "192.0.2.1", "198.51.100.1", "203.0.113.255",  # documentation
    "192.88.99.1",  # relays of 6to4
    "198.18.0.0", "198.19.255.255",  # benchmarks
    "224.0.0.1", "232.1.1.1", "239.255.255.255",  # multicast
    "240.0.0.1", "255.255.255.255",  # reserved, broadcast
    "168.63.129.16",  # the host beneath an Azure machine
]  # fmt: skip
GLOBAL_V4 = [
    "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
    "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "198.17.255.255", "198.20.0.0",
    "223.255.255.255", "168.63.129.15",
]  # fmt: skip
NOT_GLOBAL_V6 = [
    "::", "::1",  # unspecified, loopback
    "::127.0.0.1", "::1.1.1.1",  # IPv4-compatible, deprecated
    "fe80::1", "febf::1", "fec0::1",  # link-local, site-local
    "fc00::1", "fd00:ec2::254",  # unique local, and a cloud's metadata
    "ff02::1", "ff0e::1",  # multicast
    "100::1", "5f00::1", "4000::1",  # discard, segment routing, not assigned
    "64:ff9b:1::808:808",  # local translators (RFC 8215)
    "2001:db8::1", "3fff::1",  # documentation
    "2001::1", "2001:10::1", "2001:20::1", "2001:2::1",  # Teredo, ORCHID, benchmarks
]  # fmt: skip
GLOBAL_V6 = ["2606:4700:4700::1111", "2001:4860:4860::8888", "2a00::1", "2003::1"]


@pytest.mark.parametrize("address", [*GLOBAL_V4, *GLOBAL_V6])
def test_addresses_on_the_internet(address: str) -> None:
    assert is_global(address)


@pytest.mark.parametrize("address", [*NOT_GLOBAL_V4, *NOT_GLOBAL_V6])
def test_addresses_of_nearer_networks(address: str) -> None:
    assert not is_global(address)


@pytest.mark.parametrize("form", ["::ffff:{}", "64:ff9b::{}", "2002:{:02x}{:02x}:{:02x}{:02x}::1"])
def test_an_ipv4_address_within_ipv6_counts_as_itself(form: str) -> None:
    """Mapped (RFC 4291), behind a translator (RFC 6052), 6to4 (RFC 3056)."""

    def within(address: str) -> str:
        return form.format(*map(int, address.split("."))) if form.startswith("2002") else form.format(address)

    for address in NOT_GLOBAL_V4:
        assert not is_global(within(address)), address
    for address in GLOBAL_V4:
        assert is_global(within(address)), address
