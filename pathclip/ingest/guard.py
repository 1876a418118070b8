"""Which addresses a download may reach: https, named hosts, public networks; decided before connecting."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

__all__ = ["BlockedError", "Resolve", "Target", "check", "is_public", "resolve"]

Resolve = Callable[[str], Iterable[str]]
"""Host name to the addresses it stands for."""

HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))+")
NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
CLOSED = tuple(
    map(
        ipaddress.ip_network,
        (
            "64:ff9b:1::/48",  # translation within a network
            "2001::/32",  # Teredo
            "2002::/16",  # 6to4
            "192.88.99.0/24",  # its relays
            "fec0::/10",  # site-local of old
            "3fff::/20",  # documentation
        ),
    )
)
"""Never public, whatever a version of Python thinks. Source: IANA's special-purpose address registries."""
MAX_URL = 2048

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BlockedError(Exception):
    """The guard's refusal; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A place that may be reached.

    Attributes:
        url: As given.
        host: Its host, lower case.
        address: The address to connect to: the one that was checked, so that a second answer of the name
            server changes nothing.
    """

    url: str
    host: str
    address: str


def check(url: str, hosts: Iterable[str], resolve: Resolve) -> Target:
    """Decide on one URL; asked again for every redirect.

    Args:
        url: Absolute.
        hosts: Allowed host names; ``*.example.org`` allows every host below example.org.
        resolve: Asked once, for an allowed host only.

    Raises:
        BlockedError: If the scheme is not https, the host is not allowed or written as an address,
            credentials or another port are given, or any address of the host is not public.
        OSError: If the name server does not answer, which may pass.
    """
    host = _host(url)
    if not any(_matches(host, allowed.lower()) for allowed in hosts):
        raise BlockedError(f"host {host} is not among the allowed ones")
    addresses = list(resolve(host))
    if not addresses:
        raise BlockedError(f"host {host} has no address")
    for address in addresses:
        if not is_public(address):
            raise BlockedError(f"host {host} stands for {address}, which is not public")
    return Target(url, host, addresses[0])


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet; of one that carries an IPv4 address, that one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if any(found in network for network in CLOSED if network.version == found.version):
        return False
    decisive = _embedded(found) or found
    return decisive.is_global and not (
        decisive.is_multicast or decisive.is_reserved or decisive.is_unspecified
    )


def resolve(host: str) -> list[str]:
    """The addresses of a host, by the system's resolver."""
    found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _host(url: str) -> str:
    if len(url) > MAX_URL or re.search(r"[\x00-\x20\x7f\\]", url):
        raise BlockedError("the URL is too long or holds spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise BlockedError(f"no URL: {error}") from None
    if parts.scheme != "https":
        raise BlockedError(f"scheme {parts.scheme or 'none'!r}; only https is fetched")
    if parts.username is not None or parts.password is not None:
        raise BlockedError("the URL holds credentials")
    if port not in (None, 443):
        raise BlockedError(f"port {port}; only 443 is reached")
    host = (host or "").rstrip(".")
    if not HOST.fullmatch(host) or NUMBER.fullmatch(host.rpartition(".")[2]):
        raise BlockedError(f"host {host!r} is no plain host name")
    return host


def _matches(host: str, allowed: str) -> bool:
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped
