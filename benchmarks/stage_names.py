"""The stages by name: for the process that measures and for the one that does not load torch."""

from __future__ import annotations

# Beside the stages: in the job it is part of the first transaction, with fewer centers.
ASSIGN, ASSIGN_TITLE = "assign", "nearest of 1,000 centers, alone"

STAGE_TITLES = {
    "read and hash": "read and hash",
    "decode": "decode",
    "transform": "transform: resize, crop, normalise",
    "model": "model",
    "SQLite": "SQLite, 2 transactions a batch",
    "move": "move, journalled",
}
