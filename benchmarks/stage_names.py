"""The stages by name: for the process that measures and for the one that does not load torch."""

from __future__ import annotations

STAGE_TITLES = {
    "read and hash": "read and hash",
    "decode": "decode",
    "transform": "transform: resize, crop, normalise",
    "model": "model",
    "assign": "nearest of 1,000 centers",
    "SQLite": "SQLite, 2 transactions a batch",
    "move": "move, journalled",
}
