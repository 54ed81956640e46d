"""The values that pass between the parts: plain, frozen, without behaviour.

Names of files are ``bytes``, relative to their root (inbox or target): a POSIX
file name is bytes, and not every one is text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

# `status` comes this way, and NumPy alone takes 0.1 s to import
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Vectors: TypeAlias = "npt.NDArray[np.float32]"
"""float32 [n, d]: features or centers, one a row."""

Pixels: TypeAlias = "npt.NDArray[np.uint8]"
"""uint8 [224, 224, 3]: RGB, resized and cropped, not yet normalised."""

Progress: TypeAlias = Callable[[str], None]
"""Told in words what takes long."""

StageProgress: TypeAlias = Callable[[str, int, int], None]
"""Told (stage, done, of how many)."""

SizePx: TypeAlias = tuple[int, int]
"""Width and height of a picture as a person sees it: upright."""


class Op(StrEnum):
    """What is done to a file that has found its cluster."""

    MOVE = "move"
    COPY = "copy"
    HARDLINK = "hardlink"
    SYMLINK = "symlink"


class Layer(StrEnum):
    """Where in the network the features are read; ``pool5`` is the last maps of any backbone."""

    POOL5 = "pool5"
    FC2 = "fc2"
    LOGITS = "logits"


class Backbone(StrEnum):
    """The network whose features are used."""

    VGG16 = "vgg16"
    EFFICIENTNET_LITE0 = "efficientnet_lite0"

    @property
    def product_name(self) -> str:
        """Its name as people write it."""
        return {"vgg16": "VGG16", "efficientnet_lite0": "EfficientNet-Lite0"}[self.value]


class DuplicatePolicy(StrEnum):
    """What becomes of a file whose bytes are already in the library."""

    KEEP = "keep"
    SET_ASIDE = "set_aside"
    SKIP = "skip"


class FileState(StrEnum):
    """Where a file that was seen stands. All but GONE add up to ``seen``."""

    PENDING = "pending"
    SORTED = "sorted"
    REVIEW = "review"
    SET_ASIDE = "set_aside"
    DUPLICATE = "duplicate"
    UNDONE = "undone"  # back in the inbox, where it stays
    COMPANION = "companion"  # a raw file, sidecar or film that goes with its picture
    GONE = "gone"


class FitState(StrEnum):
    """What became of a fit. The one in force is an ADOPTED one."""

    ADOPTED = "adopted"
    PROPOSED = "proposed"  # waits for a person's word
    REJECTED = "rejected"
    REPLACED = "replaced"  # a proposal that a later fit took the place of


class Root(StrEnum):
    """The folder that a journalled name is relative to."""

    INBOX = "inbox"
    TARGET = "target"


class MovePhase(StrEnum):
    """How far a journalled move has come. PLANNED and COPIED are unfinished."""

    PLANNED = "planned"
    COPIED = "copied"
    DONE = "done"
    GONE = "gone"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What ``fstat`` tells of a file's content: equal stamps, equal bytes, as far as stat can say.

    ``ctime_ns`` also moves on chmod and rename; it counts while a file settles,
    not when it is recognised later (:meth:`same_content`).
    """

    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int = 0

    def same_content(self, other: Stamp) -> bool:
        """Tell whether inode, size and mtime agree."""
        return (self.inode, self.size_bytes, self.mtime_ns) == (
            other.inode,
            other.size_bytes,
            other.mtime_ns,
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A settled file in the inbox, with its row in the store.

    ``is_patient`` tells that it was quiet for long enough to be taken also where nobody
    can say whether it is still being written. ``patience_s``: seconds for which it may still
    be found incomplete; then, as at 0, it is set aside for it.
    """

    file_id: int
    name: bytes
    stamp: Stamp
    is_patient: bool = False
    patience_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that was read once: its hash and its pixels come from the same bytes."""

    candidate: Candidate
    sha256: bytes
    pixels: Pixels
    size_px: SizePx | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that cannot be a picture; ``sha256`` is of its bytes as they were read."""

    candidate: Candidate
    sha256: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file whose bytes were read for their hash alone; ``candidate`` has no row yet."""

    candidate: Candidate
    sha256: bytes


class NotRead(StrEnum):
    """Why a file was left for later instead of being read."""

    GONE = "gone"
    CHANGED = "changed"
    BUSY = "busy"
    DENIED = "denied"
    UNASKED = "unasked"  # nobody can say whether somebody writes it: more patience
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not read this time; it is not at fault."""

    candidate: Candidate
    why: NotRead
    detail: str = ""


ReadResult: TypeAlias = Picture | Unreadable | Skipped


@dataclass(frozen=True, slots=True)
class Route:
    """The decision for one file: the state it ends in and the folder it goes to.

    ``folder`` is a name directly under target (``cluster_7``, ``_set_aside``), or
    empty where the file stays in the inbox (a duplicate under the policy *skip*).
    """

    file_id: int
    state: FileState
    folder: bytes
    cluster_id: int | None = None
    distance: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Move:
    """One row of the move journal: what is to be done to which bytes.

    ``src`` is relative to ``src_root``; ``dst``, to ``dst_root``, is ``folder/name``
    under target, or after an undo the name that the file had in the inbox. There a name
    that is taken ends the move; under target another one is found. A copy or link whose
    ``dst_root`` is the inbox is taken back: it is removed, and its source stays.

    ``src_id`` and ``dst_id`` are the rows of the very folders that the two are of; 0 before it
    is planned means those in use. ``mark`` begins the names of what it makes on its way.
    """

    move_id: int
    file_id: int
    op: Op
    src_root: Root
    src: bytes
    stamp: Stamp
    sha256: bytes
    dst: bytes
    phase: MovePhase = MovePhase.PLANNED
    dst_root: Root = Root.TARGET
    src_id: int = 0
    dst_id: int = 0
    mark: str = ""


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What became of a move. An unfinished phase with ``error`` is tried again later."""

    move: Move
    phase: MovePhase
    dst: bytes
    error: str = ""
    no_space: bool = False


KEPT = "Ward, kept"
"""A fit's algorithm where the clusters in force go on, moved to the means of their pictures."""

REBUILT = "rebuilt"
"""In place of a digest: clusters known by their folders alone, without features or centers."""

IN_REVIEW, NOWHERE, BY_HAND = -1, -2, -3
"""In place of a cluster id: of a picture in review, of one in the inbox, and of one that a person
has put into review, where it stays."""


@dataclass(frozen=True, slots=True)
class ExtractorId:
    """What made a feature row: rows are comparable only where all of this is equal.

    Attributes
    ----------
    weights_digest
        SHA-256 (hex) over the tensors used.
    layer
        Where the features were read.
    dims
        Length of one vector: VGG16 512 (pool5), 4096 (fc2) or 1000 (logits);
        EfficientNet-Lite0 1280.
    backbone
        The network.
    """

    weights_digest: str
    layer: Layer
    dims: int
    backbone: Backbone = Backbone.VGG16

    def __str__(self) -> str:
        """Say what the features are, as part of a sentence."""
        if self.weights_digest == REBUILT:
            return "no features, but read off the folders after the database was lost"
        return f"{self.layer} features of weights {self.weights_digest[:12]} ({self.backbone})"


@dataclass(frozen=True, slots=True)
class KRange:
    """The numbers of clusters among which one is chosen, both ends with it."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Model:
    """One fit: centers [k, d] float32 and the permanent cluster id of each row.

    ``distances``, float32 [1001] ascending, are the quantiles 0, 1/1000 … 1 of the fit's own
    distances (:func:`imgsortd.clusters.routing.distance_quantiles`); None where they are not kept,
    as for a fit of an older imgsortd.
    """

    fit_id: int
    extractor: ExtractorId
    centers: Vectors
    cluster_ids: tuple[int, ...]
    distances: Vectors | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The cluster of a picture; ``cluster_id`` is None for review, for the ``reason`` given."""

    cluster_id: int | None
    distance: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What became of one batch, or of a part of it.

    Attributes
    ----------
    batch
        Its number in the journal, by which it can be undone; 0 where nothing is moved.
    left
        Names in the inbox that are free again: moved out, or taken away by their owner.
    placed
        Pictures of the inbox that have found their place, so that companions may follow.
    look_again, denied, unasked, incomplete
        Files that could not be read this time, by why.
    settled
        Files that are stored, so that nobody need look at them again.
    stopped
        Planned moves that were not begun, since the work is to end.
    """

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
    clusters: frozenset[int] = frozenset()
    left: tuple[bytes, ...] = ()
    placed: tuple[bytes, ...] = ()
    look_again: tuple[bytes, ...] = ()
    denied: tuple[bytes, ...] = ()
    unasked: tuple[bytes, ...] = ()
    incomplete: tuple[Candidate, ...] = ()
    settled: tuple[Candidate, ...] = ()
    errors: tuple[str, ...] = ()
    set_aside_reasons: tuple[tuple[bytes, str], ...] = ()
    no_space: bool = False
    extract_s: float = 0.0
    total_s: float = 0.0

    def __add__(self, other: BatchReport) -> BatchReport:
        """Return both parts as one, as :func:`together` does."""
        return together((self, other))

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


def together(parts: Iterable[BatchReport]) -> BatchReport:
    """Return the parts of a batch as one, under the number of the first that has one."""
    parts = tuple(parts)
    values: dict[str, Any] = {}
    for field in fields(BatchReport):
        each = [getattr(part, field.name) for part in parts]
        if field.name in ("batch", "no_space"):
            values[field.name] = next(filter(None, each), field.default)
        elif field.name == "clusters":
            values[field.name] = frozenset().union(*each)
        elif isinstance(field.default, tuple):
            values[field.name] = tuple(chain.from_iterable(each))
        else:
            values[field.name] = sum(each)
    return BatchReport(**values)


class Phase(StrEnum):
    """What the daemon is doing, as ``status`` shows it."""

    STARTING = "starting"
    WAITING = "waiting"  # too few pictures for the first fit
    IDLE = "idle"
    SORTING = "sorting"
    REEXTRACTING = "re-extracting"  # after a change of backbone
    PAUSED = "paused"  # a disk is full, or the target refuses files
    INBOX_LOST = "inbox_lost"
    STOPPED = "stopped"


class FitTrigger(StrEnum):
    """Why a fit was made."""

    BOOTSTRAP = "bootstrap"
    GROWTH = "growth"
    INTERVAL = "interval"
    REQUEST = "request"
    SORT = "sort"
    BACKBONE = "backbone"
    REBUILD = "rebuild"
    DRIFT = "drift"  # arrivals lie farther from the centers than pictures did at the fit
    SPLIT = "split"  # a cluster above clusters.max_share
    REVIEW = "review"  # pictures in review that belong together
    FOLDER = "folder"  # a person made a folder


PARTIAL = (FitTrigger.SPLIT, FitTrigger.REVIEW, FitTrigger.FOLDER)
"""Changes of a few clusters only: when the next whole fit is due goes on from the last one."""


class Start(StrEnum):
    """Where a fit begins."""

    FORMER = "former"  # the clusters in force, which stay unless new ones are clearly better
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What the inbox is at.

    Attributes
    ----------
    unread
        Files that are finished and not read yet.
    settling
        Files that may still be written; not those that could not be read as they stand.
    quiet_s
        Seconds since the last one arrived.
    """

    unread: int = 0
    settling: int = 0
    quiet_s: float = math.inf


@dataclass(frozen=True, slots=True)
class AdoptedFit:
    """A whole fit that was put in force, as far as it tells of a library's age.

    ``churn`` is the share (0 to 1) of the pictures that changed cluster; None for the first.
    ``is_kept`` tells that the clusters before it went on.
    """

    fit_id: int
    n_images: int
    churn: float | None
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What a picture looks like, as far as it is kept: its hash, and its size if it is known."""

    phash: int
    size_px: SizePx | None = None
