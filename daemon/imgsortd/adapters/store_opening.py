"""Open a library's database for reading, whether there is one yet or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from imgsortd.adapters.store import Store, open_read_only
from imgsortd.adapters.store_find import check_schema
from imgsortd.adapters.store_health import foreign_errors


@contextmanager
def open_if_there(path: Path) -> Iterator[Store | None]:
    """Open a database for reading; None where no daemon has made one yet.

    Raises
    ------
    StoreError
        It cannot be read, or is of an older imgsortd.
    """
    with open_any(path) as store:
        if store is not None:
            check_schema(store)
        yield store


@contextmanager
def open_any(path: Path) -> Iterator[Store | None]:
    """Open a database as :func:`open_if_there`, also one of an older imgsortd.

    Raises
    ------
    StoreError
        It cannot be read.
    """
    if not path.exists():
        yield None
        return
    store = open_read_only(path)
    try:
        with foreign_errors(path):
            # For the blink of the first start there are no tables.
            yield store if store.has_tables() else None
    finally:
        store.close()


def one_state(store: Store | None) -> AbstractContextManager[None]:
    """Let all that is read in a block be of one moment: counts taken apart would not add up."""
    return nullcontext() if store is None else store.snapshot()
