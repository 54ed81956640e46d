"""The pictures most like one, by the stored features of the whole library."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgsortd.config.model import Config
from imgsortd.errors import FindError, MixedFeaturesError
from imgsortd.pictures.decoder import decode_limits
from imgsortd.pictures.reading import PictureReader
from imgsortd.records import REBUILT, Candidate, ExtractorId, Picture, Progress, Skipped, Vectors
from imgsortd.reports.subjects import ClusterNames, Subject, ToldFile, find_subject, stands
from imgsortd.store.database import Store, open_for_reading
from imgsortd.store.lookup import FileRow
from imgsortd.system import filesystem

_SPARE = 32  # of the nearest, some may have been taken away by their owner


@dataclass(frozen=True, slots=True)
class SimilarFile(ToldFile):
    """A picture like the one that was asked about; ``distance`` is of the features."""

    distance: float
    same_bytes: bool


@dataclass(frozen=True, slots=True)
class SimilarReport:
    """The pictures most like one, of how many; ``model_loaded``: it had no stored features."""

    file: str
    in_library: bool
    model_loaded: bool
    compared: int
    similar: list[SimilarFile]


def similar(config: Config, path: Path, count: int, tell: Progress) -> SimilarReport:
    """Report the pictures of the library most like one.

    Raises
    ------
    FindError
        It is no picture; there is no such file; or it has no features to compare.
    StoreError, MixedFeaturesError
        There is no library yet, or another model made its features.
    """
    with open_for_reading(config.database) as store:
        extractor = library_extractor(store)
        subject = find_subject(config, store, path)
        features, is_new = features_of(config, store, extractor, subject, tell)
        compared, found = like_pictures(config, store, extractor, subject, features, count, tell)
        return SimilarReport(str(subject.path), subject.row is not None, is_new, compared, found)


def library_extractor(store: Store) -> ExtractorId:
    """Return what made the features that are compared with one another.

    Raises
    ------
    FindError
        There are no features yet.
    """
    model = store.fits.current()
    extractor = model.extractor if model is not None else store.lookup.newest_extractor()
    if extractor is None:
        raise FindError(f"{store.path}: no picture was read yet, so there is nothing to compare")
    if extractor.weights_digest == REBUILT:
        raise FindError(
            f"{store.path}: the database was made anew from the folders, and the features are "
            f"still to come; the daemon extracts them (imgsortd status says how far it is)"
        )
    return extractor


def features_of(
    config: Config, store: Store, extractor: ExtractorId, subject: Subject, tell: Progress
) -> tuple[Vectors, bool]:
    """Return the features, float32 [d], and whether the model was loaded for them.

    Raises
    ------
    FindError
        There are none, and no file to read them from.
    """
    sha256 = subject.row.sha256 if subject.row else None
    if sha256 is not None and (stored := store.fits.get_features(extractor, [sha256])):
        return stored[sha256], False
    if not subject.is_there:
        raise FindError(f"{subject.path}: it is no longer there, and no features of it are stored")
    return extract_features(config, extractor, subject.path, tell), True


def extract_features(config: Config, extractor: ExtractorId, path: Path, tell: Progress) -> Vectors:
    """Read a picture that the library does not know, and load the model for it: float32 [d].

    Raises
    ------
    FindError
        It is no picture, or cannot be read now.
    MixedFeaturesError
        The library's features were made by another model than the one configured.
    """
    picture = _read(config, path)
    tell(f"loading {config.model.backbone.product_name}: this picture has no features yet")
    from imgsortd.networks.building import build_extractor

    model = build_extractor(config.model, config.state_dir)
    if model.id != extractor:
        raise MixedFeaturesError(
            f"{path}: the configured model gives {model.id}, but the library has {extractor}; "
            f"distances between the two mean nothing. Set model back as it was, or let the "
            f"daemon extract the library's features anew"
        )
    features: Vectors = model.extract([picture.pixels])[0]
    return features


def _read(config: Config, path: Path) -> Picture:
    real = path.resolve()
    reader = PictureReader(real.parent, decode_limits(config.pictures), 1)
    try:
        stamp = filesystem.stamp_of(os.lstat(real))
        result = reader.read(Candidate(0, os.fsencode(real.name), stamp))
    except OSError as error:
        raise FindError(f"{path}: cannot be read ({error.strerror})") from error
    finally:
        reader.close()
    if isinstance(result, Picture):
        return result
    if isinstance(result, Skipped):
        raise FindError(
            f"{path}: cannot be read now ({result.why}{result.detail and f': {result.detail}'})"
        )
    raise FindError(f"{path}: {result.reason}; expected a picture")


def like_pictures(
    config: Config,
    store: Store,
    extractor: ExtractorId,
    subject: Subject,
    features: Vectors,
    count: int,
    tell: Progress,
) -> tuple[int, list[SimilarFile]]:
    """Return of how many pictures, and those most like a file, itself left out."""
    row, names = subject.row, ClusterNames(config, store)
    own, sha256 = row if subject.is_row else None, row.sha256 if row else None
    nearest = nearest_pictures(config, store, extractor, features, count, own, tell)
    return nearest.compared, [
        SimilarFile(*names.of_file(one), distance, one.sha256 == sha256)
        for one, distance in nearest.found
    ]


@dataclass(frozen=True, slots=True)
class Nearest:
    """The pictures most like one: (row, distance), the nearest first, and of how many."""

    found: list[tuple[FileRow, float]]
    compared: int


def nearest_pictures(
    config: Config,
    store: Store,
    extractor: ExtractorId,
    features: Vectors,
    count: int,
    but: FileRow | None = None,
    tell: Progress = lambda _: None,
) -> Nearest:
    """Return the files of the library whose stored features are nearest.

    All are gone through, 16 MB at a time; only the nearest of them are kept. What its owner
    took away is left out. Files with equal bytes stand one after another.

    Parameters
    ----------
    features
        float32 [d].
    but
        A file that is not to be among them.
    """
    parts = store.fits.stream_features(extractor)
    best, compared = nearest_rows(parts, features, count + _SPARE, tell)
    found: dict[int, tuple[FileRow, float]] = {}
    for file_id, distance in best:
        row = store.lookup.by_id(file_id)
        if row is None or row.sha256 is None:
            continue
        for same in store.lookup.same_bytes(row.sha256):  # also duplicates that no fit counts
            found.setdefault(same.file_id, (same, distance))
    there = [
        (row, distance)
        for row, distance in found.values()
        if (but is None or row.file_id != but.file_id) and stands(config, row)
    ]
    return Nearest(sorted(there, key=lambda one: (one[1], one[0].file_id))[:count], compared)


def nearest_rows(
    parts: Iterable[tuple[npt.NDArray[np.int64], Vectors]],
    features: Vectors,
    count: int,
    tell: Progress = lambda _: None,
) -> tuple[list[tuple[int, float]], int]:
    """Return (id, distance) of the nearest rows, the nearest first, and how many there were.

    Parameters
    ----------
    parts
        int64 [m] ids and float32 [m, d] vectors; one part at a time is in memory.
    features
        float32 [d].
    """
    ids = np.empty(0, dtype=np.int64)
    distances = np.empty(0, dtype=np.float32)
    compared = 0
    for some_ids, vectors in parts:
        compared += len(some_ids)
        tell(f"compared with {compared:,} pictures")
        ids = np.concatenate([ids, some_ids])
        distances = np.concatenate([distances, np.linalg.norm(vectors - features, axis=1)])
        if len(ids) > count:
            best = np.argpartition(distances, count - 1)[:count]
            ids, distances = ids[best], distances[best]
    order = np.lexsort((ids, distances))
    return list(zip(ids[order].tolist(), distances[order].tolist(), strict=True)), compared
