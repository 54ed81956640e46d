"""Which paths a person may be sent to after logging in."""

from __future__ import annotations

import re

_OURS = re.compile(
    r"/(?:clusters/[0-9]{1,18}|review|refits|similar/[0-9]{1,18}|status)?"
    r"(?:\?[A-Za-z0-9=&_.~%+-]{0,500})?"
)


def safe_next(path: str, query: bytes = b"") -> str:
    """Return a path of our pages; the first page for anything else, such as another site."""
    wanted = f"{path}?{query.decode('latin-1')}" if query else path
    return wanted if _OURS.fullmatch(wanted) else "/"
