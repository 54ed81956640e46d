"""Who may come in: the token and its file, cookies, the names we answer to, tries at logging in.

But for the tries, everything here is a function of keys, names and a time: a cookie outlives a
restart and dies with another token.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import stat
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from imgsortd.errors import ConfigError
from imgsortd.system.filesystem import closing

# --- the token's file -------------------------------------------------------------------------

LEAST_CHARS = 16
_MOST_BYTES = 4096
_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH
_MAKE = "make one: (umask 077; openssl rand -hex 32 > FILE)"


def read_token(path: Path) -> str:
    """Read the token; white space around it does not count.

    Raises
    ------
    ConfigError
        It cannot be read, others may read it, or it is none; the text says what to do.
    """
    where = f"web.token_file {path}:"
    try:
        # A fifo would wait for its writer for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(
            f"{where} cannot be read by uid {os.geteuid()} ({error.strerror}); "
            f"give the path of a file with the token in it; {_MAKE}"
        ) from error
    with closing(fd):
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{where} expected a regular file; {_MAKE}")
        if mode & _OTHERS:
            raise ConfigError(
                f"{where} expected a file that others cannot read, got mode "
                f"{stat.S_IMODE(mode):04o}; chmod 640 '{path}'"
            )
        text = os.read(fd, _MOST_BYTES).decode("utf-8", "replace").strip()
    if not all("!" <= char <= "~" for char in text):
        raise ConfigError(
            f"{where} expected one word of printable ASCII, got other characters; {_MAKE}"
        )
    if len(text) < LEAST_CHARS:
        raise ConfigError(
            f"{where} expected at least {LEAST_CHARS} characters, got {len(text)}; {_MAKE}"
        )
    return text


# --- sessions, and what a page's changes bring ------------------------------------------------

SESSION_S = 30 * 86_400
CSRF_S = 86_400
_CLOCK_S = 60  # by so much a clock may have been set back
_SIGNED = re.compile(r"([0-9]{1,11})\.([0-9a-f]{32})\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """The secrets of one process: what cookies and pages' tokens are signed with.

    ``token`` is the SHA-256 of the token; None where none is asked for.
    """

    token: bytes | None
    session: bytes
    csrf: bytes


def make_keys(token: str | None) -> Keys:
    """Derive the keys from the token; without one they last as long as the process."""
    root = secrets.token_bytes(32) if token is None else token.encode()
    digest = None if token is None else hashlib.sha256(root).digest()
    return Keys(digest, _sign(root, b"imgsortd session"), _sign(root, b"imgsortd csrf"))


def is_token(keys: Keys, given: bytes) -> bool:
    """Compare with the token in a time that tells nothing of it, its length included."""
    given_digest = hashlib.sha256(given).digest()
    return keys.token is not None and hmac.compare_digest(given_digest, keys.token)


def make_session(keys: Keys, now_s: float) -> str:
    """Make the value of a new session's cookie; it holds nothing of the token."""
    return _make(keys.session, int(now_s) + SESSION_S, "")


def session_of(keys: Keys, value: str, now_s: float) -> str | None:
    """Return the session that a cookie is of; None where we did not make it, or it is over."""
    found = _read(keys.session, value, "")
    if found is None or not now_s < found[0] <= now_s + SESSION_S + _CLOCK_S:
        return None
    return found[1]


def make_csrf(keys: Keys, session: str, now_s: float) -> str:
    """Make a token for the changes that a page may ask for; without a login, ``session`` is "".

    Each is another, so that the length of a compressed page tells nothing of it.
    """
    return _make(keys.csrf, int(now_s), session)


def is_csrf(keys: Keys, value: str, session: str, now_s: float) -> bool:
    """Tell whether a page of ours, made for this session within a day, brings this."""
    found = _read(keys.csrf, value, session)
    return found is not None and now_s - CSRF_S < found[0] <= now_s + _CLOCK_S


def _make(key: bytes, second: int, about: str) -> str:
    head = f"{second}.{secrets.token_hex(16)}"
    return f"{head}.{_sign(key, f'{head}.{about}'.encode()).hex()}"


def _read(key: bytes, value: str, about: str) -> tuple[int, str] | None:
    """Return the second and the random part of what we signed; None for anything else."""
    match = _SIGNED.fullmatch(value)
    if match is None:
        return None
    head = f"{match[1]}.{match[2]}"
    signature = _sign(key, f"{head}.{about}".encode())
    is_ours = hmac.compare_digest(signature, bytes.fromhex(match[3]))
    return (int(match[1]), match[2]) if is_ours else None


def _sign(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


# --- names ------------------------------------------------------------------------------------

# A page elsewhere can point a name of its own at this machine (DNS rebinding) and would then
# be of the same origin as ours; only the Host header tells. A name is therefore known or
# refused; an address needs no name server, so that nobody can rebind it.
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,253})(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"https?://(.{1,300})")
_MOST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names that are answered to, in lower case, besides ``localhost``.

    With ``any_address`` every IP address is one of ours (listening beyond loopback), without it
    loopback's only.
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


# --- tries ------------------------------------------------------------------------------------

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


class Tries:
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
