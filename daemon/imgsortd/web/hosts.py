"""Under which names this page answers.

A page elsewhere can point a name of its own at this machine (DNS rebinding) and would then
be of the same origin as ours; only the Host header tells. A name is therefore known or
refused; an address needs no name server, so that nobody can rebind it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,253})(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"https?://(.{1,300})")
_MOST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names that are answered to.

    Attributes
    ----------
    names
        In lower case, besides ``localhost``.
    any_address
        Whether every IP address is one of ours (listening beyond loopback), or loopback's only.
    """

    names: frozenset[str]
    any_address: bool

    def knows(self, host: str) -> bool:
        """Tell whether a host, as `parse_authority` returns it, is one of ours."""
        try:
            address = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return host == "localhost" or host in self.names
        return self.any_address or is_loopback(address) or host in self.names

    def is_own_origin(self, origin: str, authority: str) -> bool:
        """Tell whether an Origin header names this page, asked for under an authority.

        A reverse proxy may put its own Host; then the Origin's host must be a known name.
        """
        match = _ORIGIN.fullmatch(origin)
        found = parse_authority(match[1]) if match else None
        own = parse_authority(authority)
        if found is None or own is None:
            return False
        default = 443 if origin.startswith("https:") else 80
        if (found[0], found[1] or default) == (own[0], own[1] or default):
            return True
        return found[0] in self.names and found[1] is None


def known_hosts(allowed: Iterable[str], *, any_address: bool, machine: str) -> Hosts:
    """Put the names together: those of the configuration, and the machine's beyond loopback."""
    names = {name.lower() for name in allowed}
    return Hosts(frozenset(names | {machine.lower()} if any_address else names), any_address)


def parse_authority(value: str) -> tuple[str, int | None] | None:
    """Split ``host:port``; None where it is not the plain form that browsers send."""
    match = _AUTHORITY.fullmatch(value)
    if match is None or (match[2] is not None and not 0 < int(match[2]) <= _MOST_PORT):
        return None
    host = match[1].lower()
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return None
    return host, int(match[2]) if match[2] else None


def is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether only this machine reaches an address; a mapped IPv4 address is odd."""
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None
