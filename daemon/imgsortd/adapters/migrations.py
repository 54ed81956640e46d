"""The schema, step by step. A step that has shipped is never changed, only followed.

File names are BLOBs: they are bytes on disk, and TEXT refuses what is not UTF-8.
Vectors are BLOBs of little-endian floats: arrays, never a pickle.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations

from imgsortd.adapters.first_schema import FIRST
from imgsortd.adapters.schema_decisions import DECISIONS
from imgsortd.adapters.schema_pictures import PICTURES
from imgsortd.adapters.schema_placing import PIN_TIMES, PLACING

migrations = Migrations("imgsortd")


def _run(db: Database, statements: str) -> None:
    for statement in statements.split(";"):
        if statement.strip():
            db.conn.execute(statement)


@migrations()
def m001_first_schema(db: Database) -> None:
    """Make the tables: files, features, fits, the move journal, and the control rows."""
    _run(db, FIRST)


_SECOND = """
ALTER TABLE extractors ADD COLUMN backbone TEXT NOT NULL DEFAULT 'vgg16';
ALTER TABLE heartbeat ADD COLUMN model_busy REAL;
ALTER TABLE heartbeat ADD COLUMN runs_on TEXT NOT NULL DEFAULT '';
"""


@migrations()
def m002_backbones(db: Database) -> None:
    """Say which network made a row, and what the daemon's model runs on."""
    _run(db, _SECOND)


# A count of a million rows takes longer than all of `status` may. Triggers belong to the
# transaction of the row they count, so that a crash cannot part the two.
_ONE_MORE = """INSERT INTO file_counts
  VALUES (NEW.state, coalesce(NEW.cluster_id, -1), NEW.sha256 IS NOT NULL, 1)
  ON CONFLICT DO UPDATE SET files = files + 1;"""
_ONE_LESS = """UPDATE file_counts SET files = files - 1 WHERE state = OLD.state
  AND cluster_id = coalesce(OLD.cluster_id, -1) AND is_read = (OLD.sha256 IS NOT NULL);"""
_COUNTS = (
    """
CREATE TABLE file_counts(
  state TEXT NOT NULL,
  cluster_id INTEGER NOT NULL,
  is_read INTEGER NOT NULL,
  files INTEGER NOT NULL,
  PRIMARY KEY(state, cluster_id, is_read)
) WITHOUT ROWID
""",
    """
INSERT INTO file_counts
SELECT state, coalesce(cluster_id, -1) AS cluster, sha256 IS NOT NULL AS is_read, count(*)
FROM files GROUP BY state, cluster, is_read
""",
    f"""
CREATE TRIGGER files_counted_in AFTER INSERT ON files BEGIN
  {_ONE_MORE}
END
""",
    f"""
CREATE TRIGGER files_counted_out AFTER DELETE ON files BEGIN
  {_ONE_LESS}
END
""",
    f"""
CREATE TRIGGER files_counted_anew AFTER UPDATE OF state, cluster_id, sha256 ON files
WHEN OLD.state != NEW.state OR OLD.cluster_id IS NOT NEW.cluster_id
  OR (OLD.sha256 IS NULL) != (NEW.sha256 IS NULL) BEGIN
  {_ONE_LESS}
  {_ONE_MORE}
END
""",
    # Without it, each batch of 64 out of 100,000 waiting files would look at all of them.
    """
CREATE INDEX files_waiting ON files(id) WHERE state = 'pending' AND sha256 IS NOT NULL
""",
)


@migrations()
def m003_counts(db: Database) -> None:
    """Keep counts of the files by state and cluster, and an index of those that wait."""
    for statement in _COUNTS:
        db.conn.execute(statement)


_FOURTH = """
ALTER TABLE moves ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE moves ADD COLUMN dst_root TEXT NOT NULL DEFAULT 'target';
ALTER TABLE moves ADD COLUMN undoes INTEGER REFERENCES moves(id);
CREATE INDEX moves_batch ON moves(batch);
"""


@migrations()
def m004_undo(db: Database) -> None:
    """Number the batches of moves, let a move end in the inbox, and a file be ``undone``.

    SQLite cannot alter a CHECK. Its documentation has this way for a change that leaves
    all rows valid (lang_altertable.html, "making other kinds of table schema changes").
    """
    _run(db, _FOURTH)
    _allow_state(db, "undone")


def _allow_state(db: Database, state: str) -> None:
    """Let the CHECK of ``files.state`` have one more value."""
    (version,) = db.conn.execute("PRAGMA schema_version").fetchone()
    db.conn.execute("PRAGMA writable_schema = ON")
    db.conn.execute(
        "UPDATE sqlite_master SET sql = replace(sql, ', ''gone'')', ?) "
        "WHERE type = 'table' AND name = 'files'",
        (f", '{state}', 'gone')",),
    )
    db.conn.execute(f"PRAGMA schema_version = {version + 1}")
    db.conn.execute("PRAGMA writable_schema = RESET")


_FIFTH = """
ALTER TABLE files ADD COLUMN companion_of INTEGER REFERENCES files(id);
CREATE INDEX files_companion_of ON files(companion_of) WHERE companion_of IS NOT NULL;
CREATE INDEX files_dst ON files(dst) WHERE dst IS NOT NULL;

ALTER TABLE fits ADD COLUMN state TEXT NOT NULL DEFAULT 'adopted';
ALTER TABLE fits ADD COLUMN former_id INTEGER REFERENCES fits(id);
ALTER TABLE fits ADD COLUMN decided_at REAL;
ALTER TABLE fits ADD COLUMN decided_images INTEGER;
ALTER TABLE fits ADD COLUMN note TEXT NOT NULL DEFAULT '';
ALTER TABLE fits ADD COLUMN distances BLOB;
CREATE TABLE proposed_changes(
  fit_id INTEGER NOT NULL REFERENCES fits(id),
  file_id INTEGER NOT NULL REFERENCES files(id),
  old_id INTEGER,
  new_id INTEGER NOT NULL REFERENCES clusters(id),
  PRIMARY KEY(fit_id, file_id)
) WITHOUT ROWID;

ALTER TABLE clusters ADD COLUMN folder BLOB;
ALTER TABLE clusters ADD COLUMN folder_inode INTEGER;
CREATE UNIQUE INDEX clusters_folder ON clusters(folder) WHERE folder IS NOT NULL;

CREATE TABLE pins(
  sha256 BLOB PRIMARY KEY,
  cluster_id INTEGER REFERENCES clusters(id),
  pinned_at REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE picture_hashes(
  sha256 BLOB PRIMARY KEY,
  phash BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE kept_pairs(
  first BLOB NOT NULL,
  second BLOB NOT NULL,
  kept_at REAL NOT NULL,
  PRIMARY KEY(first, second)
) WITHOUT ROWID;
"""


@migrations()
def m005_clusters_that_stay(db: Database) -> None:
    """Keep proposals, names of folders, pins, hashes of near-duplicates, and companions.

    A fit says what became of it (``state``), which one it followed (``former_id``), when and
    at how many pictures that was decided. A pin without a cluster keeps a picture in review.
    """
    _run(db, _FIFTH + DECISIONS)
    _allow_state(db, "companion")


_SIXTH = """
CREATE TABLE left_alone(
  name BLOB PRIMARY KEY,
  reason TEXT NOT NULL
) WITHOUT ROWID;
"""


@migrations()
def m006_left_alone(db: Database) -> None:
    """Keep for ``status`` what is in the inbox and is not sorted, with the reason."""
    _run(db, _SIXTH)


@migrations()
def m007_pictures(db: Database) -> None:
    """Keep how large pictures are, and an index of those that clusters show."""
    _run(db, PICTURES)


@migrations()
def m008_placings(db: Database) -> None:
    """Keep what a picture had before a person placed it: its state, its cluster, its pin."""
    _run(db, PLACING)


@migrations()
def m009_pin_times(db: Database) -> None:
    """Keep since when a picture was pinned before a person placed it."""
    _run(db, PIN_TIMES)


_TENTH = """
CREATE TABLE fit_switches(
  batch INTEGER PRIMARY KEY,
  fit_id INTEGER NOT NULL REFERENCES fits(id),
  former_id INTEGER NOT NULL REFERENCES fits(id)
);
UPDATE fits SET state = 'replaced', note = 'made by an older imgsortd' WHERE state = 'proposed';
DELETE FROM proposed_changes WHERE fit_id IN (SELECT id FROM fits WHERE state = 'replaced');
"""


@migrations()
def m010_files_that_follow(db: Database) -> None:
    """Keep in which batch files followed from one fit to another: undoing it switches back.

    A proposal that waits says where pictures were nearest, not where they stand: it is let go.
    """
    _run(db, _TENTH)
