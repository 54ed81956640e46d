"""What a test may change of its process and has to give back, and what has been changed.

Tests run in any order and share a process: a signal, a variable of the environment or a
patched function that one leaves behind decides whether another passes.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

State: TypeAlias = dict[str, dict[Any, Any]]
"""By kind (``signal``, ``umask`` …) the value of each name."""

# Of these modules every attribute is looked at, and of their classes: they are what tests patch.
_OURS = "imgsortd"
_PATCHED = ("os", "os.path", "time", "shutil", "socket", "subprocess", "sqlite3")
# Set by pytest for each test, and by torch, threadpoolctl and scikit-learn when they are imported.
_OTHERS = (
    "PYTEST_CURRENT_TEST",
    "TORCHINDUCTOR_CACHE_DIR",
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
)
_LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]
_GONE = object()


def process_state() -> State:
    """Look at this process; nothing of it is changed by that, not even for an instant."""
    pid = os.getpid()
    state: State = {
        # SIGALRM is pytest-timeout's, another one for each test.
        "signal": {n: signal.getsignal(n) for n in signal.valid_signals() - {signal.SIGALRM}},
        "environment": {k: v for k, v in os.environ.items() if k not in _OTHERS},
        "umask": {"": re.findall(r"Umask:\s*(\d+)", Path("/proc/self/status").read_text())},
        "working folder": {"": os.getcwd()},
        "lease": dict.fromkeys(_leases(pid), "held"),
        "limit": {name: resource.getrlimit(getattr(resource, name)) for name in _LIMITS},
        # Some packages lead Python to more of themselves when they are imported.
        "sys": {
            "path": [path for path in sys.path if not path.startswith(sys.prefix)],
            "argv": list(sys.argv),
            "excepthook": sys.excepthook,
        },
        "logger": {name: _logger(name) for name in ("", _OURS)},
        "torch": _torch(),
        "watching thread": _watching_threads(),
        "module": dict(sys.modules),
    }
    for kind, attributes in _watched(len(sys.modules)):
        state[kind] = _copy_of(kind, attributes)
    return state


@lru_cache(maxsize=1)
def _watched(_modules: int) -> list[tuple[str, Mapping[str, object]]]:
    """List the modules and classes to look into; made again when there are more modules."""
    watched: list[tuple[str, Mapping[str, object]]] = []
    for name, module in sys.modules.items():
        if name in _PATCHED or name.partition(".")[0] == _OURS:
            watched.append((f"attribute of {name}", vars(module)))
            watched += [
                (f"attribute of {name}.{held.__qualname__}", vars(held))
                for held in vars(module).values()
                if isinstance(held, type) and held.__module__ == name
            ]
    return watched


_copies: dict[str, dict[str, object]] = {}


def _copy_of(kind: str, attributes: Mapping[str, object]) -> dict[str, object]:
    """Return a copy, the same one as long as nothing changes: most never do."""
    copy = _copies.get(kind)
    if copy is None or not _equal(copy, attributes):
        copy = _copies[kind] = dict(attributes)
    return copy


def changes(before: State, after: State) -> list[str]:
    """Say what is no longer as it was; a module that has been imported since is no change."""
    return [
        f"{kind} {name}: {_shown(was)}, now {_shown(now)}".replace(" :", ":")
        for kind, values in before.items()
        for name, was, now in _differences(values, after.get(kind, {}))
        if not (was is _GONE and _may_come(kind, name, now, before["module"]))
    ]


def _differences(before: dict[Any, Any], after: dict[Any, Any]) -> Iterator[tuple[Any, Any, Any]]:
    if before is after or _equal(before, after):  # quick: what is identical is not compared
        return
    for name in {**before, **after}:
        was, now = before.get(name, _GONE), after.get(name, _GONE)
        if was is not now and not str(name).startswith("__") and not _equal(was, now):
            yield name, was, now


def _equal(was: object, now: object) -> bool:
    try:
        return bool(was == now)
    except (TypeError, ValueError):  # an array, say: another one is another value
        return False


def _may_come(kind: str, name: str, now: object, modules: dict[str, Any]) -> bool:
    if kind == "module":
        top, _, below = name.partition(".")
        if below and top not in modules and hasattr(sys.modules.get(top), "__path__"):
            return True  # of a package that has been imported, and builds what it likes
        return isinstance(now, ModuleType) and not _stands_in(name, now)
    # A module becomes an attribute of its package when it is imported.
    return kind == "torch" or isinstance(now, ModuleType)


def _stands_in(name: str, module: ModuleType) -> bool:
    """Tell whether a module was made by hand in the place of one that could be imported."""
    if getattr(module, "__spec__", None) is not None:
        return False
    found = sys.modules.pop(name)
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, AttributeError, ValueError):
        return False  # a part of a library, which made it itself
    finally:
        sys.modules[name] = found


def _leases(pid: int) -> list[str]:
    locks = Path("/proc/locks").read_text().splitlines()
    return [" ".join(line.split()[1:]) for line in locks if "LEASE" in line and f" {pid} " in line]


def _watching_threads() -> dict[str, object]:
    """The threads of watches: one reader serves all of a process, and outlives none of them."""
    threads = [each for each in threading.enumerate() if "watchdog" in type(each).__module__]
    return {f"{type(each).__name__} {each.ident}": "alive" for each in threads}


def _logger(name: str) -> tuple[object, ...]:
    logger = logging.getLogger(name)
    # pytest has handlers of its own, other ones in each phase of a test.
    handlers = [each for each in logger.handlers if not type(each).__module__.startswith("_pytest")]
    return logger.level, handlers, logger.propagate, logger.disabled


def _torch() -> dict[str, object]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    return {
        name: getattr(torch, name)()
        for name in ("get_num_threads", "is_grad_enabled", "get_default_dtype")
    }


def _shown(value: object) -> str:
    return "not there" if value is _GONE else repr(value)[:200]
