"""Turn labels into journalled moves: folders, duplicates, names that nobody has."""

from __future__ import annotations

import logging
import os
from typing import Protocol

from imgsortd.config.model import Config
from imgsortd.moves.mover import Mover
from imgsortd.names import (
    REVIEW_FOLDER,
    SET_ASIDE_FOLDER,
    base_name,
    folder_of,
    free_name,
    name_beside,
)
from imgsortd.records import (
    Candidate,
    Choice,
    DuplicatePolicy,
    FileState,
    Move,
    Op,
    Root,
    Route,
    Unreadable,
)
from imgsortd.store.database import Store
from imgsortd.store.lookup import Standing
from imgsortd.system.filesystem import look, split

log = logging.getLogger(__name__)

_OF_CLUSTERS = (FileState.SORTED, FileState.DUPLICATE)


class InInbox(Protocol):
    """The companions that stand in the inbox, as planning has to know them."""

    def of(self, picture: bytes) -> list[bytes]:
        """Return those that a picture leads."""

    def reserve(self, name: bytes, dst: bytes) -> None:
        """Keep a name below target free for one whose picture goes before."""

    def release(self, name: bytes) -> bytes:
        """Give up the name that is kept for one, and return it; empty where none is."""

    def reserved(self) -> set[bytes]:
        """Return the names that are kept."""


class Planner:
    """Plans the moves of one transaction, so that no two are promised one name.

    Parameters
    ----------
    fit_id
        The fit in force; None while files wait for the first one (then only
        :meth:`set_aside` may be called).
    companions
        A name must be free for them as well as for their picture.
    batch
        The batch that the moves belong to; None for a new one, numbered with the first of them.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        mover: Mover,
        fit_id: int | None,
        companions: InInbox | None = None,
        batch: int | None = None,
    ) -> None:
        self._config, self._store, self._mover = config, store, mover
        self._fit_id = fit_id
        self._companions = companions
        self._promised = store.journal.planned_names()
        if companions is not None:
            self._promised |= companions.reserved()
        self._named = store.records.named_folders()
        self._originals: dict[bytes, bytes] = {}
        self.batch = batch or 0
        """The number that all these moves have in common, by which they can be undone."""

    def numbered(self) -> int:
        """Return the number of the batch, given now where it has none."""
        self.batch = self.batch or self._store.journal.next_batch()
        return self.batch

    def set_aside(self, unreadable: Unreadable) -> Move | None:
        """Plan the move of a file that is no picture; None where it was made before."""
        candidate, sha256 = unreadable.candidate, unreadable.sha256
        if self._is_known(candidate, sha256):
            return None
        edited = self._edited(candidate, sha256)
        file_id = candidate.file_id if edited is None else edited.file_id
        route = Route(file_id, FileState.SET_ASIDE, SET_ASIDE_FOLDER, reason=unreadable.reason)
        if edited is not None:
            return self._along(edited, sha256, route)
        return self._send(candidate, sha256, route)

    def route(self, candidate: Candidate, sha256: bytes, choice: Choice) -> Move | None:
        """Plan the move of a picture to its cluster, or to review; None where the file stays."""
        if self._is_known(candidate, sha256):
            return None
        edited = self._edited(candidate, sha256)
        if edited is not None:
            choice, folder = self._place(sha256, choice, None)
            state = FileState.REVIEW if choice.cluster_id is None else FileState.SORTED
            ends = (choice.cluster_id, choice.distance, choice.reason)
            return self._along(edited, sha256, Route(edited.file_id, state, folder, *ends))
        if (former := self._with_former_name(sha256)) is not None:
            self._store.files.end(former.file_id, "its source has another name now")
            folder = split(former.dst)[0]
            route = Route(candidate.file_id, former.state, folder, former.cluster_id)
            return self._journal(candidate, sha256, Root.INBOX, former.dst, route, self._fit_id)
        original = self._original_of(candidate, sha256)
        choice, folder = self._place(sha256, choice, original)
        if original is None and self._is_there_already(candidate, sha256, folder):
            original = folder + b"/" + base_name(candidate.name)
        if original is None:
            state = FileState.REVIEW if choice.cluster_id is None else FileState.SORTED
            cluster_id, reason = choice.cluster_id, choice.reason
        else:
            state, reason = FileState.DUPLICATE, f"same bytes as {os.fsdecode(original)}"
            policy = self._config.duplicates
            cluster_id = choice.cluster_id if policy is DuplicatePolicy.KEEP else None
            if policy is DuplicatePolicy.SKIP:
                self._store.files.skip(candidate.file_id, reason)
                return None
            if policy is DuplicatePolicy.SET_ASIDE:
                folder = SET_ASIDE_FOLDER
        route = Route(candidate.file_id, state, folder, cluster_id, choice.distance, reason)
        move = self._send(candidate, sha256, route)
        self._originals.setdefault(sha256, move.dst)
        return move

    def follow(self, file_id: int, old_id: int | None, new_id: int | None) -> Move | None:
        """Plan the move of a file from one cluster's folder to another's; None is for review.

        None comes back where it does not stand there.
        """
        placed = self._store.hands.file(file_id)
        if placed is None:
            return None
        if old_id is None:
            assert new_id is not None
            is_of_old, state = placed.state is FileState.REVIEW, FileState.SORTED
        else:
            is_of_old = placed.state in _OF_CLUSTERS and placed.cluster_id == old_id
            state = placed.state
        stamp = look(self._config.target, placed.dst) if is_of_old else None
        if stamp is None or self._store.pins.is_pinned(placed.sha256):
            return None  # moved, deleted or put there by its owner: respected
        if new_id is None:
            route = Route(file_id, FileState.REVIEW, REVIEW_FOLDER)
        else:
            route = Route(file_id, state, folder_of(new_id, self._named), new_id)
        return self.within(Candidate(file_id, placed.dst, stamp), placed.sha256, route)

    def within(self, candidate: Candidate, sha256: bytes, route: Route) -> Move:
        """Plan the move of a picture from where it stands in target to another folder there."""
        return self._send(candidate, sha256, route, Root.TARGET)

    def beside(
        self,
        candidate: Candidate,
        sha256: bytes,
        picture: tuple[bytes, bytes],
        *,
        batch: int | None,
        src_root: Root = Root.INBOX,
    ) -> Move:
        """Plan the move of a companion to where its picture stands.

        Parameters
        ----------
        picture
            Its picture's name before that one's move, and its place below target now.
        batch
            That of the picture's move, so that an undo takes both back; None where it has none.
        """
        self._release(candidate.name)
        wanted = _beside(candidate.name, *picture)
        folder, name = split(wanted)
        dst = free_name(folder, name, self._is_taken)
        if dst != wanted:
            tell_other_name(wanted, dst)
        route = Route(candidate.file_id, FileState.COMPANION, folder)
        return self._journal(candidate, sha256, src_root, dst, route, batch=batch)

    def _place(self, sha256: bytes, choice: Choice, original: bytes | None) -> tuple[Choice, bytes]:
        """Return the cluster and the folder: a person's word goes before the distances."""
        pin = self._store.pins.get(sha256)
        if pin is not None:
            choice = Choice(pin.cluster_id, choice.distance, "pinned")
        if choice.cluster_id is not None:
            return choice, folder_of(choice.cluster_id, self._named)
        if pin is not None and original is not None:
            return choice, original.split(b"/", 1)[0]
        return choice, REVIEW_FOLDER

    def _is_known(self, candidate: Candidate, sha256: bytes) -> bool:
        """Tell whether a file that stays in the inbox was only touched since it was sorted."""
        files = self._store.files
        self._mover.roots.bring_home(candidate.name, sha256)
        for file_id, dst, state in files.staying(candidate.name, sha256, candidate.file_id):
            is_undone = state == FileState.UNDONE  # a person has put it back, to stay
            if is_undone or dst is not None:  # its copy may be moved or deleted: respected
                files.forget(candidate.file_id, candidate.stamp, file_id)
                files.replaced(candidate.name, file_id)
                return True
            files.end(file_id, "seen again")  # skipped before: it is looked at anew
        return False

    def _edited(self, candidate: Candidate, sha256: bytes) -> Standing | None:
        """Return the row of a link to this very file, which has other bytes than it was sorted by.

        The row speaks of the bytes that it has now, and the file's new row is forgotten: a
        picture that was edited is one picture. What else was sorted under its name is another.
        """
        files, inbox = self._store.files, os.fsencode(self._config.inbox)
        for row in self._store.hands.links_from(candidate.name):
            if self._mover.is_link_to(row.dst, os.path.join(inbox, candidate.name)):
                pin = self._store.pins.get(row.sha256)
                if pin is not None:  # it stays where its owner has put it
                    self._store.pins.put(sha256, pin.cluster_id, pin.pinned_at)
                files.edited(row.file_id, sha256, candidate.stamp)
                files.forget(candidate.file_id, candidate.stamp, row.file_id)
                return row
        files.replaced(candidate.name, candidate.file_id)
        return None

    def _along(self, row: Standing, sha256: bytes, route: Route) -> Move | None:
        """Plan the move of an edited picture's link to another folder; None where it is there."""
        stamp = look(self._config.target, row.dst)
        if stamp is None or split(row.dst)[0] == route.folder:
            return None
        return self.within(Candidate(row.file_id, row.dst, stamp), sha256, route)

    def _with_former_name(self, sha256: bytes) -> Standing | None:
        """Return the row of a symlink that leads nowhere: its source has another name now."""
        if self._config.op is not Op.SYMLINK:
            return None
        rows = self._store.hands.links_with(sha256)
        return next((row for row in rows if self._mover.leads_nowhere(row.dst)), None)

    def _original_of(self, candidate: Candidate, sha256: bytes) -> bytes | None:
        """Return where the same bytes stand already, or None; a name alone proves nothing."""
        if sha256 in self._originals:
            return self._originals[sha256]
        size_bytes = candidate.stamp.size_bytes
        for file_id, dst in self._store.files.same_bytes(sha256, candidate.file_id):
            if self._mover.holds_bytes(dst, size_bytes, sha256):
                return dst
            if not self._mover.exists(dst):
                # Its owner took it out of target again, perhaps to have it sorted anew.
                self._store.hands.taken_away([file_id], "no longer in target")
        return None

    def _is_there_already(self, candidate: Candidate, sha256: bytes, folder: bytes) -> bool:
        """Tell whether a file that the store does not know has the name and the bytes."""
        dst = folder + b"/" + base_name(candidate.name)
        return self._mover.exists(dst) and self._mover.holds_bytes(
            dst, candidate.stamp.size_bytes, sha256
        )

    def _send(
        self, candidate: Candidate, sha256: bytes, route: Route, src_root: Root = Root.INBOX
    ) -> Move:
        """Plan a picture's move to a name under which its companions have free names, too."""
        picture = candidate.name
        if src_root is Root.TARGET:
            companions = [row.dst for row in self._store.companions.of(candidate.file_id)]
        else:
            companions = self._companions.of(picture) if self._companions else []
        self._release(picture)

        def is_taken(dst: bytes) -> bool:
            names = (_beside(name, picture, dst) for name in companions)
            return self._is_taken(dst) or any(map(self._is_taken, names))

        dst = free_name(route.folder, base_name(picture), is_taken)
        if src_root is Root.INBOX and self._companions is not None:
            for name in companions:
                beside = _beside(name, picture, dst)
                self._companions.reserve(name, beside)
                self._promised.add(beside)
        return self._journal(candidate, sha256, src_root, dst, route, self._fit_id)

    def _is_taken(self, dst: bytes) -> bool:
        return dst in self._promised or self._mover.exists(dst)

    def _release(self, name: bytes) -> None:
        if self._companions is not None:
            self._promised.discard(self._companions.release(name))

    def _journal(
        self,
        candidate: Candidate,
        sha256: bytes,
        src_root: Root,
        dst: bytes,
        route: Route,
        fit_id: int | None = None,
        batch: int | None = None,
    ) -> Move:
        batch = batch or self.numbered()
        self._promised.add(dst)
        op = self._config.op if src_root is Root.INBOX else Op.MOVE
        name, stamp = candidate.name, candidate.stamp
        planned = Move(0, candidate.file_id, op, src_root, name, stamp, sha256, dst)
        return self._store.journal.plan(planned, route, batch=batch, fit_id=fit_id)


def tell_other_name(wanted: bytes, dst: bytes) -> None:
    """Log that a companion's stem is no longer its picture's: a stranger has the name."""
    log.warning("companion named otherwise name=%r instead=%r", *map(os.fsdecode, (dst, wanted)))


def _beside(companion: bytes, picture: bytes, dst: bytes) -> bytes:
    return dst[: len(dst) - len(base_name(dst))] + name_beside(companion, picture, dst)
