"""How many kills, cuts and calls a test made: for docs/reliability.md, by ``--junitxml``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Figure: TypeAlias = Callable[[str, object], None]
