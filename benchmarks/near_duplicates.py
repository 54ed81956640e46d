"""``python -m benchmarks.near_duplicates DIR``: how well are copies told from other pictures?

Every photograph below DIR is one picture of a library; of some, copies are made as people and
programs make them. For each threshold of the hash and of the features: the share of the copies
that is found with its original (recall), the pairs of different photographs that are called
near-duplicates, and the precision that follows where each chosen photograph has one copy.
Photographs of one folder are mostly of one class, which makes them hard to tell apart.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from rich.console import Console
from rich.progress import track
from rich.table import Table

from imgsortd.adapters.features import build_extractor
from imgsortd.adapters.images import decode
from imgsortd.adapters.weight_sources import default_cache_dir
from imgsortd.config import ModelConfig
from imgsortd.core.near_pairs import COSINE_A_BIT, LEAST_COSINE, MAX_BITS, are_near
from imgsortd.core.perceptual import differing_bits, perceptual_hash
from imgsortd.core.records import Vectors

BITS = (0, 2, 4, 5, 6, 7, 8, 10, 12, 64)
COSINES = (-1.0, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
_EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp"}
_ORIENTATION, _TURNED = 274, 6
_AT_ONCE = 64
_ROWS = 512

console = Console(highlight=False, width=120)


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures in rows: hashes uint64 [n] and features float32 [n, d], of length 1."""

    hashes: npt.NDArray[np.uint64]
    features: Vectors


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _resized(image: Image.Image, factor: float) -> Image.Image:
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = (round(side * share) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


def _turned(image: Image.Image) -> bytes:
    """Store the picture on its side, with the EXIF orientation that sets it upright."""
    exif = Image.Exif()
    exif[_ORIENTATION] = _TURNED
    return _saved(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=92, exif=exif)


def _marked(image: Image.Image) -> Image.Image:
    """Write across the lower right corner, a fifth of the width, half transparent."""
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    size = max(8, image.width // 14)
    where = (image.width * 0.78, image.height - 1.8 * size)
    draw.text(where, "(c) me", fill=(255, 255, 255, 128), font_size=size)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG, quality 90": lambda image: _saved(image, "JPEG", quality=90),
    "JPEG, quality 70": lambda image: _saved(image, "JPEG", quality=70),
    "JPEG, quality 40": lambda image: _saved(image, "JPEG", quality=40),
    "PNG": lambda image: _saved(image, "PNG"),
    "WebP, quality 80": lambda image: _saved(image, "WEBP", quality=80),
    "half the size": lambda image: _saved(_resized(image, 0.5), "JPEG", quality=85),
    "twice the size": lambda image: _saved(_resized(image, 2), "JPEG", quality=85),
    "turned by EXIF": _turned,
    "2 % cut off each side": lambda image: _saved(_cropped(image, 0.02), "JPEG", quality=90),
    "5 % cut off each side": lambda image: _saved(_cropped(image, 0.05), "JPEG", quality=90),
    "a seventh brighter": lambda image: _saved(
        ImageEnhance.Brightness(image).enhance(8 / 7), "JPEG", quality=90
    ),
    "a seventh darker": lambda image: _saved(
        ImageEnhance.Brightness(image).enhance(6 / 7), "JPEG", quality=90
    ),
    "a mark in the corner": lambda image: _saved(_marked(image), "JPEG", quality=90),
}


def photographs(folder: Path) -> list[Path]:
    """Return the pictures below a folder, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _EXTENSIONS)


def read(files: Iterator[bytes], count: int, extract: Callable[..., Vectors]) -> Pictures:
    """Hash and extract pictures, a batch at a time."""
    hashes: list[int] = []
    features: list[Vectors] = []
    batch: list[Any] = []
    for number, data in enumerate(track(files, "reading", total=count, console=console), 1):
        batch.append(decode(data))
        if len(batch) == _AT_ONCE or number == count:
            hashes += [perceptual_hash(pixels) for pixels in batch]
            features.append(extract(batch))
            batch = []
    rows = np.concatenate(features)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return Pictures(np.array(hashes, dtype=np.uint64), rows)


def pair_table(bits: npt.NDArray[np.uint8], cosines: Vectors) -> npt.NDArray[np.int64]:
    """Count the pairs within each threshold: int64 [len(BITS), len(COSINES)]."""
    return np.array(
        [[int(((bits <= b) & (cosines >= c)).sum()) for c in COSINES] for b in BITS],
        dtype=np.int64,
    )


def count_different(
    library: Pictures,
    sources: npt.NDArray[np.intp],
    pictures: Pictures,
    count: Callable[[npt.NDArray[np.uint8], Vectors], npt.NDArray[np.int64]],
    *,
    once: bool,
) -> npt.NDArray[np.int64]:
    """Count pairs of different photographs.

    Parameters
    ----------
    sources
        intp [m], the row in ``library`` of the photograph that each of ``pictures`` shows.
    count
        Counts pairs, given in how many bits each differs, and its cosine.
    once
        The two are the same rows: each pair is counted once.
    """
    found: npt.NDArray[np.int64] | int = 0
    rows = np.arange(len(library.hashes))
    for start in range(0, len(sources), _ROWS):
        part = slice(start, start + _ROWS)
        bits = differing_bits(pictures.hashes[part, None], library.hashes[None])
        cosines = pictures.features[part] @ library.features.T
        counted = rows < sources[part, None] if once else rows != sources[part, None]
        found = found + count(bits[counted], cosines[counted])
    return np.asarray(found)


def pair_counts(bits: npt.NDArray[np.uint8], cosines: Vectors) -> npt.NDArray[np.int64]:
    """Count the pairs within each threshold, and last, by itself, what imgsortd takes."""
    table = pair_table(bits, cosines).ravel()
    return np.append(table, int(are_near(bits, cosines).sum()))


def worst_pairs(library: Pictures, paths: Sequence[Path]) -> list[str]:
    """Name the pairs of different photographs that imgsortd would report."""
    lines = []
    for row in range(1, len(paths)):
        apart = differing_bits(library.hashes[row], library.hashes[:row])
        alike = library.features[:row] @ library.features[row]
        for other in np.flatnonzero(are_near(apart, alike)).tolist():
            names = f"{paths[other]}  {paths[row]}"
            lines.append(f"{names}  {apart[other]} bits, cosine {alike[other]:.3f}")
    return lines


def measure(folder: Path, sample: int, cache: Path | None, *, name_pairs: bool) -> None:
    """Measure and print."""
    paths = photographs(folder)
    chosen = np.linspace(0, len(paths) - 1, min(sample, len(paths))).astype(np.intp)
    library, copies = _read_or_recall(paths, chosen, cache)
    n_images = len(paths)
    console.print(f"{n_images:,} photographs, {len(chosen):,} of them with {len(COPIES)} copies")
    recalls, wrong_copies = [], []
    for pictures in copies:
        bits = differing_bits(pictures.hashes, library.hashes[chosen])
        alike = np.einsum("ij,ij->i", pictures.features, library.features[chosen])
        recalls.append(pair_counts(bits, alike) / len(chosen))
        wrong_copies.append(count_different(library, chosen, pictures, pair_counts, once=False))
    recall = np.mean(recalls, axis=0)
    wrong = count_different(library, np.arange(n_images), library, pair_counts, once=True)
    right, wrong_in_all = recall * len(chosen), wrong + np.mean(wrong_copies, axis=0)
    precision = right / np.maximum(right + wrong_in_all, 1e-9)
    pairs = n_images * (n_images - 1) // 2
    _print("recall: copies found with their original", recall, percent=True)
    _print(f"pairs of different photographs, of {pairs:,}", wrong)
    _print(f"precision, {len(chosen):,} photographs with one copy each", precision, percent=True)
    console.print(
        f"imgsortd: up to {MAX_BITS} bits, cosine {LEAST_COSINE} and {COSINE_A_BIT} more a bit: "
        f"recall {100 * recall[-1]:.1f} %, {wrong[-1]:,} pairs of different photographs, "
        f"precision {100 * precision[-1]:.1f} %"
    )
    for name, of_kind in zip(COPIES, recalls, strict=True):
        console.print(f"{100 * of_kind[-1]:6.1f} %  {name}")
    for line in worst_pairs(library, paths) if name_pairs else ():
        console.print(line, markup=False, soft_wrap=True)


def _read_or_recall(
    paths: Sequence[Path], chosen: npt.NDArray[np.intp], cache: Path | None
) -> tuple[Pictures, list[Pictures]]:
    if cache is not None and cache.exists():
        with np.load(cache) as kept:
            both = [
                Pictures(kept[f"hashes{i}"], kept[f"features{i}"]) for i in range(1 + len(COPIES))
            ]
        return both[0], both[1:]
    extract = build_extractor(ModelConfig(), default_cache_dir()).extract
    library = read((path.read_bytes() for path in paths), len(paths), extract)
    copies = []
    for make in COPIES.values():
        files = (make(_upright(paths[at])) for at in chosen)
        copies.append(read(files, len(chosen), extract))
    if cache is not None:
        arrays: dict[str, Any] = {}
        for number, one in enumerate([library, *copies]):
            arrays |= {f"hashes{number}": one.hashes, f"features{number}": one.features}
        np.savez(cache, **arrays)
    return library, copies


def _upright(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def _print(title: str, values: npt.NDArray[Any], *, percent: bool = False) -> None:
    grid = values[:-1].reshape(len(BITS), len(COSINES))
    table = Table(title=title, title_justify="left")
    table.add_column("bits \\ cosine", justify="right")
    for cosine in COSINES:
        table.add_column("any" if cosine < 0 else f"≥ {cosine:g}", justify="right")
    for bits, row in zip(BITS, grid, strict=True):
        shown = [f"{100 * v:.1f} %" if percent else f"{v:,.0f}" for v in row]
        table.add_row("any" if bits == BITS[-1] else f"≤ {bits}", *shown)
    console.print(table)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="photographs, none of them twice")
    parser.add_argument("--sample", type=int, default=250, help="photographs that get copies")
    parser.add_argument("--cache", type=Path, help="an .npz to keep hashes and features in")
    parser.add_argument(
        "--name", action="store_true", help="name the different photographs that are reported"
    )
    given = parser.parse_args()
    measure(given.folder, given.sample, given.cache, name_pairs=given.name)


if __name__ == "__main__":
    main()
