"""What ``imgsortd doctor`` looks at on the machine: rights, room, limits, clock, model, decoder."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from imgsortd.adapters import copying, fsops
from imgsortd.adapters.decode_limits import decode_limits
from imgsortd.adapters.decoding import Decoder, NoDecoderError
from imgsortd.adapters.inbox import Inbox
from imgsortd.config import Config, Polling
from imgsortd.core.records import Backbone, Op
from imgsortd.errors import ImgsortdError

_MIN_FREE_BYTES = 1 << 30
_MIN_FREE_SHARE = 0.05
_CLOCK_S = 2.0
_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600
_INOTIFY = Path("/proc/sys/fs/inotify")


class Verdict(StrEnum):
    """How a finding is meant."""

    FINE = "fine"
    NOTE = "note"  # works, but a person should know
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was looked at, and what is to be done where it is bad."""

    what: str
    verdict: Verdict
    text: str

    def as_dict(self) -> dict[str, str]:
        """Return it as plain values for JSON."""
        return asdict(self)


def counted(count: int, what: str) -> str:
    """Write ``1 file`` and ``2 files``."""
    return f"{count:,} {what}" + "s" * (count != 1)


def check_rights(config: Config) -> Iterator[Finding]:
    """Look whether the folders can be used, and the state is for its owner alone."""
    what = "permissions"
    wrong = list(loose_rights(config))
    for path, mode, wanted in wrong:
        text = f"{path} has mode {mode:04o}; do: chmod {wanted:o} '{path}' (or --repair)"
        yield Finding(what, Verdict.BAD, text)
    foreign = [p for p in _state_files(config) if p.lstat().st_uid != os.geteuid()]
    if foreign and os.geteuid() != 0:
        yield Finding(
            what,
            Verdict.BAD,
            f"{foreign[0]} belongs to uid {foreign[0].lstat().st_uid}, you are uid "
            f"{os.geteuid()}; run doctor as the service's user",
        )
    written = [config.target, *([config.inbox] if config.op is Op.MOVE else [])]
    for folder in written:
        try:
            copying.try_folder(folder)
        except OSError as error:
            text = f"{folder} takes no files ({error.strerror}); give uid {os.geteuid()} the right"
            yield Finding(what, Verdict.BAD, text)
            wrong.append((folder, 0, 0))
    if config.op is Op.MOVE and _is_sticky_of_another(config.inbox):
        yield Finding(
            what,
            Verdict.BAD,
            f"{config.inbox} has the sticky bit and another owner, so files of others cannot be "
            f"moved out of it; do: chmod -t '{config.inbox}'",
        )
    elif not wrong:
        yield Finding(what, Verdict.FINE, "folders can be written, the state is private")


def check_inbox(config: Config) -> Iterator[Finding]:
    """Look whether every folder of the inbox can be listed, and every file read and taken."""
    what = "inbox"
    inbox = Inbox(config.inbox, config.recursive, config.ignore, config.extensions)
    needed = os.R_OK | os.W_OK | os.X_OK if config.op is Op.MOVE else os.R_OK | os.X_OK
    wrong: list[str] = []
    folders: set[bytes] = set()
    try:
        for name, _ in inbox.scan():
            folders.add(os.path.dirname(name))
            if not _may(config.inbox, name, os.R_OK):
                wrong.append(os.fsdecode(name))
    except ImgsortdError as error:
        yield Finding(what, Verdict.BAD, str(error))
        return
    unlisted = {name for name, reason in inbox.left_alone.items() if "cannot be listed" in reason}
    unusable = unlisted | {name for name in folders if not _may(config.inbox, name, needed)}
    wrong += [os.fsdecode(name) + "/" for name in sorted(unusable - {b""})]
    if wrong:
        more = f" and {len(wrong) - 3:,} more" if len(wrong) > 3 else ""
        text = f"not to be read or emptied by uid {os.geteuid()}: {', '.join(wrong[:3])}{more}"
        yield Finding(what, Verdict.BAD, f"{text}; give it the right to")
    else:
        yield Finding(what, Verdict.FINE, "every folder and file in it can be read")


def _may(inbox: Path, name: bytes, mode: int) -> bool:
    path = os.path.join(os.fsencode(inbox), name)
    return os.access(path, mode, effective_ids=True) or not os.path.lexists(path)


def _state_files(config: Config) -> list[Path]:
    return [path for path in (config.state_dir, config.database) if path.exists()]


def loose_rights(config: Config) -> Iterator[tuple[Path, int, int]]:
    """Yield (path, mode, mode wanted) of what of the state others could read."""
    for path in _state_files(config):
        mode = stat.S_IMODE(path.stat().st_mode)
        wanted = _PRIVATE_FOLDER if path.is_dir() else _PRIVATE_FILE
        if mode & 0o077:
            yield path, mode, wanted


def _is_sticky_of_another(folder: Path) -> bool:
    status = folder.stat()
    return bool(status.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, status.st_uid)


def check_room(config: Config) -> Iterator[Finding]:
    """Look at the free space of each disk in use."""
    seen: set[int] = set()
    for name in ("target", "state_dir", "inbox"):
        folder: Path = getattr(config, name)
        if not folder.exists() or folder.stat().st_dev in seen:
            continue
        seen.add(folder.stat().st_dev)
        disk = os.statvfs(folder)
        free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        text = f"{free / 1e9:,.1f} GB free of {total / 1e9:,.1f} on the disk of {name} {folder}"
        low = free < _MIN_FREE_BYTES and free < _MIN_FREE_SHARE * total
        if low or free < _MIN_FREE_BYTES // 16:
            yield Finding("free space", Verdict.BAD, f"{text}; free some, sorting will pause")
        elif disk.f_files and disk.f_favail == 0:
            yield Finding("free space", Verdict.BAD, f"no inode is free on the disk of {folder}")
        else:
            yield Finding("free space", Verdict.FINE, text)


def check_inotify(config: Config) -> Iterator[Finding]:
    """Look whether the inbox can be watched under this user's limits."""
    what = "inotify"
    if config.polling is Polling.ON:
        yield Finding(what, Verdict.FINE, "not used: polling is on")
        return
    try:
        watches, queued = (
            int((_INOTIFY / name).read_text()) for name in ("max_user_watches", "max_queued_events")
        )
    except OSError:
        yield Finding(what, Verdict.NOTE, f"{_INOTIFY} cannot be seen from here; limits unknown")
        return
    folders = sum(1 for _ in fsops.walk(config.inbox, deep=True)) if config.recursive else 1
    text = f"{counted(folders, 'folder')} to watch, {watches:,} allowed, "
    text += f"{queued:,} events queued at most"
    if folders > watches:
        text = f"{text}; do: sysctl fs.inotify.max_user_watches={2 * folders} (until then: polling)"
        yield Finding(what, Verdict.BAD, text)
    else:
        yield Finding(what, Verdict.FINE, text)


def check_clock(config: Config, newest_at: float | None) -> Iterator[Finding]:
    """Compare this machine's clock with those of the disks, and with what was stored."""
    what, now = "clock", time.time()
    if newest_at is not None and newest_at > now + _CLOCK_S:
        ahead_s = newest_at - now
        text = f"the store knows of times {ahead_s:,.0f} s in the future: the clock was set back"
        yield Finding(what, Verdict.NOTE, f"{text}; files are sorted all the same")
    for folder in (config.state_dir, config.target):
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                off_s = os.fstat(file.fileno()).st_mtime - time.time()
        except OSError:
            continue  # told by the permissions
        if abs(off_s) > _CLOCK_S:
            text = f"the disk of {folder} is {off_s:+.0f} s off this machine's clock; set both"
            yield Finding(what, Verdict.NOTE, f"{text} by NTP")
            return
    yield Finding(what, Verdict.FINE, "the disks agree with this machine")


def check_mounts(config: Config) -> Iterator[Finding]:
    """Tell whether a move is a rename or a copy."""
    if config.op is not Op.MOVE:
        return
    try:
        with tempfile.NamedTemporaryFile(dir=config.inbox, prefix=".imgsortd-try.") as file:
            end = config.target / Path(file.name).name
            os.link(file.name, end)
            end.unlink()
    except OSError as error:
        text = f"inbox and target are two mounts ({error.strerror}): each move is a checked copy"
        yield Finding("mounts", Verdict.NOTE, text)
    else:
        yield Finding("mounts", Verdict.FINE, "a move is one rename")


def check_model(config: Config, stored_digest: str | None) -> Iterator[Finding]:
    """Load the weights and compare their digest with that of the stored features."""
    what, model = "weights", config.model
    try:
        if model.backbone is Backbone.EFFICIENTNET_LITE0:
            from imgsortd.adapters.efficientnet import efficientnet_lite0_network

            digest = efficientnet_lite0_network(model.weights).id.weights_digest
        else:
            from imgsortd.adapters.weights import load_weights

            digest = load_weights(model.weights, model.layer, allow_download=False).digest
    except ImgsortdError as error:
        yield Finding(what, Verdict.BAD, str(error))
        return
    if stored_digest not in (None, digest):
        text = f"digest {digest[:12]}, but the clusters were fitted with {stored_digest[:12]}"
        yield Finding(what, Verdict.BAD, f"{text}; set model.weights back")
    else:
        text = f"{model.backbone.product_name} whole, digest {digest[:12]}"
        yield Finding(what, Verdict.FINE, text)


def check_decoder(config: Config) -> Iterator[Finding]:
    """Start a decoding process and tell how it is confined."""
    decoder = Decoder(decode_limits(config.pictures))
    try:
        measures = decoder.start()
    except NoDecoderError as error:
        yield Finding("decoder", Verdict.BAD, str(error))
        return
    finally:
        decoder.close()
    walled = "landlock" in measures
    text = f"{config.pictures.max_decode_memory_mb:,} MB and {config.pictures.max_decode_s:g} s a "
    text += f"picture, confined by {measures.replace(',', ', ')}"
    if not walled:
        text += "; this kernel has no Landlock, so the unit alone keeps it from files"
    yield Finding("decoder", Verdict.FINE if walled else Verdict.NOTE, text)
