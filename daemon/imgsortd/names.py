"""Names of folders: which are clusters', and what may a cluster's folder be called?

Without NumPy, for `status` comes this way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import count

NAME_MAX_BYTES = 255
_CLUSTER = re.compile(rb"cluster_(0|[1-9][0-9]{0,9})")

SET_ASIDE_FOLDER = b"_set_aside"
REVIEW_FOLDER = b"_review"


def cluster_folder(cluster_id: int) -> bytes:
    """Return the folder name of a cluster."""
    return b"cluster_%d" % cluster_id


def cluster_number(folder: bytes) -> int | None:
    """Return the number of a cluster's folder; None where it is another folder."""
    match = _CLUSTER.fullmatch(folder)
    return int(match[1]) if match else None


def base_name(name: bytes) -> bytes:
    """Return the last part of a relative name."""
    return name.rsplit(b"/", 1)[-1]


def folder_problem(folder: bytes, cluster_id: int, named: Mapping[int, bytes]) -> str:
    """Say why a cluster's folder cannot have this name; empty where it can.

    Parameters
    ----------
    folder
        The name, directly under target.
    named
        The folders of the clusters that have names.
    """
    if not folder:
        return "must not be empty"
    if b"/" in folder or b"\0" in folder:
        return "must be one name, without a slash or a zero byte"
    if folder.startswith((b".", b"_")):
        return "must not begin with a dot or an underscore, which are for hidden and own folders"
    if len(folder) > NAME_MAX_BYTES:
        return f"must have at most {NAME_MAX_BYTES} bytes, got {len(folder)}"
    number = cluster_number(folder)
    if number not in (None, cluster_id):
        return f"is the folder of cluster {number}"
    owner = next((i for i, name in named.items() if name == folder and i != cluster_id), None)
    return "" if owner is None else f"is the folder of cluster {owner}"


def folder_of(cluster_id: int, named: Mapping[int, bytes]) -> bytes:
    """Return the folder of a cluster: the one that a person has named, or its number's."""
    return named.get(cluster_id) or cluster_folder(cluster_id)


def cluster_of(folder: bytes, named: Mapping[int, bytes]) -> int | None:
    """Return the cluster that a folder belongs to; None where it is no cluster's.

    ``cluster_7`` stays cluster 7's when it has a name, too: what is put there is meant for it.
    """
    owner = next((number for number, name in named.items() if name == folder), None)
    return cluster_number(folder) if owner is None else owner


def name_choices(name: bytes) -> Iterator[bytes]:
    """Yield ``photo.jpg``, ``photo-1.jpg``, ``photo-2.jpg`` … each within 255 bytes.

    The stem is cut on bytes where the number needs the room; the suffix is kept.
    """
    stem, dot, suffix = name.rpartition(b".")
    if not dot or not stem or len(suffix) > 16:
        stem, suffix = name, b""
    else:
        suffix = dot + suffix
    first = stem[: NAME_MAX_BYTES - len(suffix)] + suffix
    yield first
    for number in count(1):
        tail = b"-%d%s" % (number, suffix)
        choice = stem[: NAME_MAX_BYTES - len(tail)] + tail
        if choice != first:  # a name of 255 bytes may end in -1 already
            yield choice


def free_name(folder: bytes, name: bytes, taken: Callable[[bytes], bool]) -> bytes:
    """Return ``folder/name`` for the first choice of name that is not taken."""
    for choice in name_choices(name):
        path = folder + b"/" + choice
        if not taken(path):
            return path
    raise AssertionError("name_choices never ends")


def parts(name: bytes) -> tuple[bytes, bytes]:
    """Split a name into its stem, with its folder, and its extension in lower case."""
    folder_length = len(name) - len(base_name(name))
    dot = name.rfind(b".", folder_length + 1)
    return (name, b"") if dot < 0 else (name[:dot], name[dot:].lower())


def name_beside(companion: bytes, picture: bytes, new: bytes) -> bytes:
    """Return a companion's name, without folder, where its picture is called ``new``.

    Parameters
    ----------
    companion, picture
        Their names until now.
    new
        The picture's name from now on: ``cluster_7/IMG_1-1.JPG`` makes an ``IMG_1.xmp``
        an ``IMG_1-1.xmp``. A companion that was given another stem before keeps its name.
    """
    stem, base = base_name(parts(picture)[0]), base_name(companion)
    return base_name(parts(new)[0]) + base[len(stem) :] if base.startswith(stem) else base
