"""What must be true at the end of every experiment with a daemon."""

from __future__ import annotations

import os

from imgsortd.inbox.watching import SENTINEL
from imgsortd.store.database import open_for_reading
from inboxes import Inbox
from support import leftovers, sums


def check_kept(one: Inbox, most: int = 2) -> None:
    """See that at this instant every content dropped has a name, and not too many."""
    found = sums(one.inbox, one.target)
    lost = [content for content in one.dropped if content not in found]
    assert not lost, f"{len(lost)} of {len(one.dropped)} contents have no name"
    assert all(found[content] <= most * count for content, count in one.dropped.items())


def check_books(one: Inbox) -> None:
    """See that each file has one place, that the books say so, and that nothing is left over."""
    one.check()
    store = open_for_reading(one.config.database)
    places = [os.fsdecode(dst) for _, dst in store.files.placed()]
    unfinished = store.journal.unfinished()
    store.close()
    assert unfinished == []
    assert len(places) == len(set(places)) == sum(one.dropped.values())
    assert all((one.target / place).is_file() for place in places)
    left = leftovers(one.inbox, one.target)
    assert [path for path in left if not path.name.startswith(SENTINEL)] == []
