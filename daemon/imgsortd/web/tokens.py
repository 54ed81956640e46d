"""What proves who asks: the token, the cookie made of it, and a page's token for changes.

Everything here is a pure function of keys and a time; nothing is kept, so that a cookie
outlives a restart and dies with another token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

SESSION_S = 30 * 86_400
CSRF_S = 86_400
_CLOCK_S = 60  # by so much a clock may have been set back
_SIGNED = re.compile(r"([0-9]{1,11})\.([0-9a-f]{32})\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """The secrets of one process.

    Attributes
    ----------
    token
        SHA-256 of the token; None where none is asked for.
    session, csrf
        What cookies and pages' tokens are signed with.
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
    return (
        found[1] if found is not None and now_s < found[0] <= now_s + SESSION_S + _CLOCK_S else None
    )


def make_csrf(keys: Keys, session: str, now_s: float) -> str:
    """Make a token for the changes that one page may ask for.

    Each is another, so that the length of a compressed page tells nothing of it.

    Parameters
    ----------
    session
        Whose page it is; empty where nobody has to log in.
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
    return (
        (int(match[1]), match[2])
        if hmac.compare_digest(signature, bytes.fromhex(match[3]))
        else None
    )


def _sign(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")
