"""How often somebody may try to log in."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

FREE = 20
"""So many wrong tokens from one address cost nothing: a proxy may bring all people from one."""
FREE_IN_ALL = 100
_LEAST_S, _MOST_S = 2.0, 300.0
_MOST_IN_ALL_S = 10.0  # one who guesses from everywhere must not lock everybody out
_MOST_ADDRESSES = 1000
_EVERYBODY = "*"


@dataclass(slots=True)
class _Record:
    failures: int = 0
    wait_until_s: float = 0.0
    last_s: float = 0.0


class Attempts:
    """Counts wrong tokens by address, and in all; each one above a few doubles the wait.

    While an address waits, a right token is refused too: else guessing would go on at full
    speed. Who is logged in already is not asked.
    """

    def __init__(self) -> None:
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def wait_s(self, address: str, now_s: float) -> int:
        """Return the whole seconds that this address has to wait; 0 where it may try."""
        found = (self._records.get(name) for name in (_EVERYBODY, _network(address)))
        longest = max((record.wait_until_s - now_s for record in found if record), default=0.0)
        return max(0, -int(-longest // 1))

    def fail(self, address: str, now_s: float) -> None:
        """Count a wrong token."""
        for name, free, most_s in (
            (_network(address), FREE, _MOST_S),
            (_EVERYBODY, FREE_IN_ALL, _MOST_IN_ALL_S),
        ):
            record = self._records.setdefault(name, _Record())
            if now_s - record.last_s > _MOST_S:
                record.failures = 0
            record.failures += 1
            record.last_s = now_s
            over = record.failures - free
            if over > 0:
                record.wait_until_s = now_s + min(most_s, _LEAST_S * 2 ** min(over - 1, 20))
            self._records.move_to_end(name)
        while len(self._records) > _MOST_ADDRESSES:
            self._records.popitem(last=False)

    def succeed(self, address: str) -> None:
        """Forget what an address did before it had the right token."""
        self._records.pop(_network(address), None)


def _network(address: str) -> str:
    """Take the addresses that one person is given together: IPv6 comes by 2^64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
