"""Which IP addresses a fetch may connect to: those of hosts on the Internet, and of no network nearer than that."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

#: Not global by IANA's registry of special addresses, or by use; ``is_global`` of Python 3.11 lets them through.
_NOT_GLOBAL_V4: Final = (
    IPv4Network("192.0.0.0/24"),  # IETF protocol assignments; a cloud's metadata at 192.0.0.192
    IPv4Network("192.88.99.0/24"),  # relays of 6to4, deprecated
    IPv4Network("168.63.129.16/32"),  # a public address that is the host beneath an Azure machine
)
#: Where addresses of hosts are assigned from (RFC 4291, section 2.4), less what is special in it.
_UNICAST_V6: Final = IPv6Network("2000::/3")
_NOT_GLOBAL_V6: Final = (
    IPv6Network("2001::/23"),  # IETF protocol assignments: Teredo, ORCHID, benchmarks
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("3fff::/20"),  # documentation (RFC 9637)
)
#: An IPv4 address behind a translator (RFC 6052); its last 32 bits.
_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_global(address: str) -> bool:
    """Whether an address, IPv4 or IPv6, is of a host on the Internet. An IPv4 address within IPv6 counts as itself."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv4Address):
        return _is_global_v4(parsed)
    inner = _inner(parsed)
    if inner is not None:
        return _is_global_v4(inner)
    return parsed in _UNICAST_V6 and not any(parsed in network for network in _NOT_GLOBAL_V6)


def _is_global_v4(address: IPv4Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return not any(address in network for network in _NOT_GLOBAL_V4)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address to which packets for this one go in the end; None if there is none."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
