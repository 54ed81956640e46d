"""What ``imgsortd sort`` is asked for, and what it reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from imgsortd.core.records import Op
from imgsortd.errors import ImgsortdError

DEFAULT_CLUSTERS = 100
STATE_FOLDER = ".imgsortd"
PICTURES_A_CLUSTER = 10


class StoppedError(ImgsortdError):
    """The person stopped the job; what was done is kept."""


@dataclass(frozen=True, slots=True)
class SortJob:
    """What ``imgsortd sort`` was asked for.

    ``n_clusters`` None means the article's 100, or one for every ten pictures
    where there are fewer than 1,000.
    """

    source: Path
    target: Path
    n_clusters: int | None
    op: Op
    state_dir: Path | None
    recursive: bool
    random_state: int
    dry_run: bool


@dataclass(slots=True)
class SortReport:
    """What came of it.

    ``clusters`` maps cluster ids to pictures placed in their folders; ``model_busy`` is
    the share of the time for features in which the model computed.
    """

    source: str
    target: str
    op: str
    dry_run: bool
    n_clusters: int = 0
    found: int = 0
    known_before: int = 0
    sorted: int = 0
    duplicates: int = 0
    companions: int = 0
    set_aside: list[dict[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    clusters: dict[int, int] = field(default_factory=dict)
    runs_on: str = ""
    images_per_s: float = 0.0
    model_busy: float | None = None
    int8: dict[str, Any] | None = None
    total_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)
