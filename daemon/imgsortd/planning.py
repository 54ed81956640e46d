"""Turn labels into journalled moves: folders, duplicates, names that nobody has."""

from __future__ import annotations

import logging
import os

from imgsortd.adapters.fsops import look
from imgsortd.adapters.mover import Mover
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_companions import StoreCompanions
from imgsortd.companions import Companions
from imgsortd.config import Config
from imgsortd.core.companions import name_beside
from imgsortd.core.names import folder_of
from imgsortd.core.records import (
    Candidate,
    DuplicatePolicy,
    FileState,
    Model,
    Move,
    Op,
    Root,
    Route,
    Unreadable,
)
from imgsortd.core.review import Choice
from imgsortd.core.routing import (
    REVIEW_FOLDER,
    SET_ASIDE_FOLDER,
    base_name,
    free_name,
)

log = logging.getLogger(__name__)


class Planner:
    """Plans the moves of one transaction, so that no two are promised one name.

    Parameters
    ----------
    model
        Current centers; None while files wait for the first fit (then only
        :meth:`set_aside` may be called).
    companions
        Those in the inbox: a name must be free for them as well as for their picture.

    Attributes
    ----------
    batch
        The number that all these moves have in common, by which they can be undone.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        mover: Mover,
        model: Model | None,
        companions: Companions | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._mover = mover
        self._model = model
        self._reserved = companions.reserved if companions else {}
        self._companions_in_inbox = companions.of if companions else lambda _: []
        self._promised = store.journal.planned_names() | set(self._reserved.values())
        self._folders = store.records.named_folders()
        self._originals: dict[bytes, bytes] = {}
        self.batch = store.journal.next_batch()

    def set_aside(self, unreadable: Unreadable) -> Move | None:
        """Plan the move of a file that is no picture; None where it was made before."""
        if self._is_known(unreadable.candidate, unreadable.sha256):
            return None
        route = Route(
            unreadable.candidate.file_id,
            FileState.SET_ASIDE,
            SET_ASIDE_FOLDER,
            reason=unreadable.reason,
        )
        return self._write(unreadable.candidate, unreadable.sha256, route)

    def folder_of(self, cluster_id: int) -> bytes:
        """Return the folder of a cluster: the one that a person has named, or its number's."""
        return folder_of(cluster_id, self._folders)

    def route(self, candidate: Candidate, sha256: bytes, choice: Choice) -> Move | None:
        """Plan the move of a picture to its cluster, or to review; None where the file stays."""
        if self._is_known(candidate, sha256):
            return None
        original = self._original_of(candidate, sha256)
        choice, folder = self._place(sha256, choice, original)
        cluster_id = choice.cluster_id
        if original is None and self._is_there_already(candidate, sha256, folder):
            original = folder + b"/" + base_name(candidate.name)
        if original is None:
            state = FileState.REVIEW if cluster_id is None else FileState.SORTED
            route = Route(
                candidate.file_id, state, folder, cluster_id, choice.distance, choice.reason
            )
        else:
            route = self._duplicate(candidate, folder, choice, original)
        if not route.folder:
            self._store.files.finish(route.file_id, route.state, stays=True, reason=route.reason)
            return None
        move = self._write(candidate, sha256, route)
        self._originals.setdefault(sha256, move.dst)
        return move

    def _place(self, sha256: bytes, choice: Choice, original: bytes | None) -> tuple[Choice, bytes]:
        """Return the cluster and the folder: a person's word goes before the distances."""
        pin = self._store.pins.get(sha256)
        if pin is not None:
            choice = Choice(pin.cluster_id, choice.distance, "pinned")
        if choice.cluster_id is not None:
            return choice, self.folder_of(choice.cluster_id)
        if pin is not None and original is not None:
            return choice, original.split(b"/", 1)[0]
        return choice, REVIEW_FOLDER

    def _is_known(self, candidate: Candidate, sha256: bytes) -> bool:
        """Tell whether a file that stays in the inbox was only touched since it was sorted."""
        files = self._store.files
        for file_id, dst, state in files.staying(candidate.name, sha256, candidate.file_id):
            is_undone = state == FileState.UNDONE  # a person has put it back, to stay
            if is_undone or dst is not None:  # its copy may be moved or deleted: respected
                files.forget(candidate.file_id, candidate.stamp, file_id)
                return True
            # Skipped before: it is looked at anew, under its new row.
            files.finish(file_id, FileState.GONE, stays=False, reason="seen again")
        files.end_undone(candidate.name, candidate.file_id)
        return False

    def _original_of(self, candidate: Candidate, sha256: bytes) -> bytes | None:
        """Return where the same bytes stand already, or None."""
        if sha256 in self._originals:
            return self._originals[sha256]
        for file_id, dst, state in self._store.files.same_bytes(sha256, candidate.file_id):
            if dst is not None and self._mover.exists(dst):
                return dst
            if state != FileState.DUPLICATE:
                # Its owner took it out of target again, perhaps to have it sorted anew.
                self._store.hands.taken_away([file_id], "no longer in target")
        return None

    def _is_there_already(self, candidate: Candidate, sha256: bytes, folder: bytes) -> bool:
        """Tell whether a file that the store does not know has the name and the bytes."""
        dst = folder + b"/" + base_name(candidate.name)
        return self._mover.exists(dst) and self._mover.holds_bytes(
            dst, candidate.stamp.size_bytes, sha256
        )

    def _duplicate(
        self, candidate: Candidate, folder: bytes, choice: Choice, original: bytes
    ) -> Route:
        reason = f"same bytes as {os.fsdecode(original)}"
        kept = self._config.duplicates is DuplicatePolicy.KEEP
        if not kept:
            skip = self._config.duplicates is DuplicatePolicy.SKIP
            folder = b"" if skip else SET_ASIDE_FOLDER
        return Route(
            candidate.file_id,
            FileState.DUPLICATE,
            folder,
            choice.cluster_id if kept else None,
            choice.distance,
            reason,
        )

    def _write(
        self,
        candidate: Candidate,
        sha256: bytes,
        route: Route,
        *,
        op: Op | None = None,
        src_root: Root = Root.INBOX,
    ) -> Move:
        companions = self._companions_of(candidate, src_root)
        self._promised.discard(self._reserved.pop(candidate.name, b""))
        dst = self._free_for_all(route.folder, candidate.name, companions)
        self._promised.add(dst)
        if src_root is Root.INBOX:
            for name in companions:
                self._reserved[name] = _beside(name, candidate.name, dst)
                self._promised.add(self._reserved[name])
        return self._store.journal.plan(
            candidate,
            sha256,
            route,
            op=op or self._config.op,
            dst=dst,
            fit_id=self._model.fit_id if self._model else None,
            batch=self.batch,
            src_root=src_root,
        )

    def _is_taken(self, dst: bytes) -> bool:
        return dst in self._promised or self._mover.exists(dst)

    def _companions_of(self, candidate: Candidate, root: Root) -> list[bytes]:
        if root is Root.INBOX:
            return self._companions_in_inbox(candidate.name)
        rows = StoreCompanions(self._store.connection).of(candidate.file_id)
        return [row.dst for row in rows]

    def _free_for_all(self, folder: bytes, picture: bytes, companions: list[bytes]) -> bytes:
        """Return a name for a picture under which its companions have free names, too."""

        def is_taken(dst: bytes) -> bool:
            names = (_beside(name, picture, dst) for name in companions)
            return self._is_taken(dst) or any(map(self._is_taken, names))

        return free_name(folder, base_name(picture), is_taken)

    def beside(
        self,
        candidate: Candidate,
        sha256: bytes,
        picture: tuple[bytes, bytes],
        *,
        batch: int,
        src_root: Root = Root.INBOX,
    ) -> Move:
        """Plan the move of a companion to where its picture stands.

        Parameters
        ----------
        picture
            Its picture's name before that one's move, and its place below target now.
        batch
            That of the picture's move, so that an undo takes both back.
        """
        self._promised.discard(self._reserved.pop(candidate.name, b""))
        wanted = _beside(candidate.name, *picture)
        folder, _, name = wanted.rpartition(b"/")
        dst = free_name(folder, name, self._is_taken)
        self._promised.add(dst)
        if dst != wanted:
            tell_other_name(wanted, dst)
        return self._store.journal.plan(
            candidate,
            sha256,
            Route(candidate.file_id, FileState.COMPANION, folder),
            op=self._config.op if src_root is Root.INBOX else Op.MOVE,
            dst=dst,
            fit_id=None,
            batch=batch,
            src_root=src_root,
        )

    def follow(self, file_id: int, old_id: int | None, new_id: int | None) -> Move | None:
        """Plan the move of a file from one cluster's folder to another's; None is for review.

        None comes back where it does not stand there.
        """
        if old_id is None:
            assert new_id is not None
            return self.take_out(file_id, new_id)
        placed = self._store.files.placed_in(file_id)
        if placed is None or placed.cluster_id != old_id:
            return None
        stamp = look(self._config.target, placed.dst)
        if stamp is None or self._store.pins.is_pinned(placed.sha256):
            return None  # moved, deleted or put there by its owner: respected
        if new_id is None:
            route = Route(file_id, FileState.REVIEW, REVIEW_FOLDER)
        else:
            route = Route(file_id, placed.state, self.folder_of(new_id), new_id)
        return self.within(Candidate(file_id, placed.dst, stamp), placed.sha256, route)

    def take_out(self, file_id: int, cluster_id: int) -> Move | None:
        """Plan the move of a file from review to a cluster; None where it is not there."""
        placed = self._store.files.in_review(file_id)
        stamp = None if placed is None else look(self._config.target, placed[0])
        if placed is None or stamp is None or self._store.pins.is_pinned(placed[1]):
            return None
        dst, sha256 = placed
        route = Route(file_id, FileState.SORTED, self.folder_of(cluster_id), cluster_id)
        candidate = Candidate(file_id, dst, stamp)
        return self.within(candidate, sha256, route)

    def within(self, candidate: Candidate, sha256: bytes, route: Route) -> Move:
        """Plan the move of a picture from where it stands in target to another folder there."""
        return self._write(candidate, sha256, route, op=Op.MOVE, src_root=Root.TARGET)


def tell_other_name(wanted: bytes, dst: bytes) -> None:
    """Log that a companion's stem is no longer its picture's: a stranger has the name."""
    log.warning("companion named otherwise name=%r instead=%r", *map(os.fsdecode, (dst, wanted)))


def _beside(companion: bytes, picture: bytes, dst: bytes) -> bytes:
    return dst[: len(dst) - len(base_name(dst))] + name_beside(companion, picture, dst)
