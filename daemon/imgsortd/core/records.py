"""The values that pass between the parts: plain, frozen, without behaviour.

Names of files are ``bytes``, relative to their root (inbox or target): a POSIX
file name is bytes, and not every one is text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # `status` comes this way, and NumPy alone takes 0.1 s to import
    import numpy as np
    import numpy.typing as npt

Vectors: TypeAlias = "npt.NDArray[np.float32]"
"""float32 [n, d]: features or centers, one a row."""

Pixels: TypeAlias = "npt.NDArray[np.uint8]"
"""uint8 [224, 224, 3]: RGB, resized and cropped, not yet normalised."""

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


@dataclass(frozen=True, slots=True)
class KRange:
    """The numbers of clusters among which one is chosen, both ends with it."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Model:
    """One fit: centers [k, d] float32 and the permanent cluster id of each row.

    ``distances``, float32 [1001] ascending, are the quantiles 0, 1/1000 … 1 of the fit's own
    distances (:func:`imgsortd.core.review.distance_quantiles`); None where they are not kept,
    as for a fit of an older imgsortd.
    """

    fit_id: int
    extractor: ExtractorId
    centers: Vectors
    cluster_ids: tuple[int, ...]
    distances: Vectors | None = None
