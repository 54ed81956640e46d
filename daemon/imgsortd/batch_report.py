"""What became of a batch of files, as the loop, the log and the commands are told."""

from __future__ import annotations

from dataclasses import dataclass, field

from imgsortd.core.records import Candidate


@dataclass(slots=True)
class BatchReport:
    """What became of one batch."""

    batch: int = 0
    images: int = 0
    extracted: int = 0
    sorted: int = 0
    duplicates: int = 0
    set_aside: int = 0
    review: int = 0
    companions: int = 0
    waiting: int = 0
    gone: int = 0
    stopped: int = 0
    clusters: set[int] = field(default_factory=set)
    left: list[bytes] = field(default_factory=list)
    placed: list[bytes] = field(default_factory=list)
    look_again: list[bytes] = field(default_factory=list)
    denied: list[bytes] = field(default_factory=list)
    unasked: list[bytes] = field(default_factory=list)
    incomplete: list[Candidate] = field(default_factory=list)
    settled: list[Candidate] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    set_aside_reasons: list[tuple[bytes, str]] = field(default_factory=list)
    no_space: bool = False
    extract_s: float = 0.0
    total_s: float = 0.0

    @property
    def unread(self) -> int:
        """Files that could not be read this time."""
        by_name = len(self.look_again) + len(self.denied) + len(self.unasked)
        return by_name + len(self.incomplete)

    def in_a_line(self) -> str:
        """Return the counts and seconds as they are logged."""
        return (
            f"batch={self.batch} images={self.images} sorted={self.sorted} "
            f"clusters={len(self.clusters)} review={self.review} duplicates={self.duplicates} "
            f"set_aside={self.set_aside} waiting={self.waiting} "
            f"extract_s={self.extract_s:.2f} total_s={self.total_s:.2f}"
        )
