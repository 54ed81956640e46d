"""What the demo sorts: the bundled scenes, or a person's own pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from photos import check_space, copy_in, find_photos, inbox_names, write_slowly
from scenes import CROPS_A_SCENE, crops, find_scenes, scene_of


@dataclass(frozen=True, slots=True)
class Sample:
    """What goes into the inbox.

    Attributes
    ----------
    drop_into
        Writes the files into a folder one after another; yields the SHA-256 of each.
    class_of
        The known class in a file's name; None for a person's own pictures.
    """

    about: str
    count: int
    drop_into: Callable[[Path], Iterator[str]]
    class_of: Callable[[str], str] | None


def sample_of_scenes() -> Sample:
    """Return crops of scikit-image's photographs."""
    scenes = find_scenes()

    def drop_into(inbox: Path) -> Iterator[str]:
        for name, data in crops(scenes):
            yield write_slowly(data, inbox / name)

    about = (
        f"{len(scenes)} photographs that come with scikit-image, {CROPS_A_SCENE} crops of each, "
        f"varied in scale, brightness and JPEG quality, one photograph after the other"
    )
    return Sample(about, len(scenes) * CROPS_A_SCENE, drop_into, scene_of)


def sample_of_photos(folder: Path, workspace: Path) -> Sample:
    """Return copies of a person's own pictures."""
    paths = find_photos(folder, workspace)
    size_bytes = check_space(paths, workspace)

    def drop_into(inbox: Path) -> Iterator[str]:
        for path, name in zip(paths, inbox_names(paths), strict=True):
            yield copy_in(path, inbox / name)

    about = f"copies of the {len(paths):,} pictures ({size_bytes / 1e6:,.1f} MB) in {folder}"
    about += "; the originals stay as they are"
    return Sample(about, len(paths), drop_into, None)
