"""What an undo gives back to a picture that a person had placed: its state, and its pin."""

from __future__ import annotations

from dataclasses import replace

from imgsortd.adapters import fsops
from imgsortd.adapters.store import Store
from imgsortd.adapters.store_pins import Pin
from imgsortd.adapters.store_placing import Former
from imgsortd.core.names import cluster_of
from imgsortd.core.records import FileState, Move


def former_of(store: Store, move: Move) -> Former | None:
    """Return what a picture was before a placing; None where the move is no placing.

    The folder that it stood in may have become a cluster since: then it belongs to that.
    """
    former = store.placings.before(move.move_id)
    if former is None or former.before.cluster_id is not None:
        return former
    if former.before.state not in (FileState.SORTED, FileState.DUPLICATE):
        return former
    number = cluster_of(fsops.split(move.src)[0], store.records.named_folders())
    if number is None or not store.placings.in_force(number):
        return former
    pin = former.pin
    if pin == Pin(None):
        pin = Pin(number, pin.pinned_at)
    return Former(replace(former.before, cluster_id=number), pin)


def note_back(store: Store, move: Move, former: Former) -> None:
    """Keep, with the planned undo of a placing, the pin that it gives back.

    A pin is of bytes: where it speaks of a copy that was placed elsewhere since, it stays.
    """
    pin, row = store.pins.get(move.sha256), store.hands.file(move.file_id)
    is_of_this = pin is None or row is None or pin.cluster_id == row.cluster_id
    store.placings.note(move, former.pin if is_of_this else pin)
