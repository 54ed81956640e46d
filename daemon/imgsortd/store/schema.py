"""The schema, step by step. A step that has shipped is never changed, only followed.

File names are BLOBs: they are bytes on disk, and TEXT refuses what is not UTF-8.
Vectors are BLOBs of little-endian floats: arrays, never a pickle.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlite_utils import Database, Migrations

migrations = Migrations("imgsortd")


def _step(name: str, statements: str | Iterable[str], new_state: str = "") -> None:
    """Add a step: its statements, and one more value for ``files.state``."""

    @migrations(name=name)
    def apply(db: Database) -> None:
        for statement in statements.split(";") if isinstance(statements, str) else statements:
            if statement.strip():
                db.conn.execute(statement)
        if new_state:
            _allow_state(db, new_state)


def _allow_state(db: Database, state: str) -> None:
    """Let the CHECK of ``files.state`` have one more value.

    SQLite cannot alter a CHECK. Its documentation has this way for a change that leaves
    all rows valid (lang_altertable.html, "making other kinds of table schema changes").
    """
    (version,) = db.conn.execute("PRAGMA schema_version").fetchone()
    db.conn.execute("PRAGMA writable_schema = ON")
    db.conn.execute(
        "UPDATE sqlite_master SET sql = replace(sql, ', ''gone'')', ?) "
        "WHERE type = 'table' AND name = 'files'",
        (f", '{state}', 'gone')",),
    )
    db.conn.execute(f"PRAGMA schema_version = {version + 1}")
    db.conn.execute("PRAGMA writable_schema = RESET")


# The tables: files, features, fits, the move journal, and the control rows.
_step(
    "m001_first_schema",
    """
CREATE TABLE files(
  id INTEGER PRIMARY KEY,
  src BLOB NOT NULL,
  inode INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  sha256 BLOB,
  state TEXT NOT NULL DEFAULT 'pending' CHECK(
    state IN ('pending', 'sorted', 'review', 'set_aside', 'duplicate', 'gone')),
  stays INTEGER NOT NULL DEFAULT 0,
  cluster_id INTEGER,
  distance REAL,
  fit_id INTEGER,
  dst BLOB,
  reason TEXT NOT NULL DEFAULT '',
  seen_at REAL NOT NULL,
  done_at REAL
);
CREATE UNIQUE INDEX files_one_pending ON files(src) WHERE state = 'pending';
CREATE INDEX files_src ON files(src);
CREATE INDEX files_sha256 ON files(sha256);
CREATE INDEX files_state ON files(state, cluster_id);
CREATE INDEX files_done_at ON files(done_at);

CREATE TABLE extractors(
  id INTEGER PRIMARY KEY,
  weights_digest TEXT NOT NULL,
  layer TEXT NOT NULL,
  dims INTEGER NOT NULL,
  UNIQUE(weights_digest, layer)
);
CREATE TABLE features(
  sha256 BLOB NOT NULL,
  extractor_id INTEGER NOT NULL REFERENCES extractors(id),
  vector BLOB NOT NULL,
  PRIMARY KEY(sha256, extractor_id)
) WITHOUT ROWID;

CREATE TABLE fits(
  id INTEGER PRIMARY KEY,
  extractor_id INTEGER NOT NULL REFERENCES extractors(id),
  is_current INTEGER NOT NULL DEFAULT 0,
  fit_trigger TEXT NOT NULL,
  algorithm TEXT NOT NULL,
  n_clusters INTEGER NOT NULL,
  n_images INTEGER NOT NULL,
  random_state INTEGER NOT NULL,
  inertia REAL NOT NULL,
  churn REAL,
  fit_s REAL NOT NULL,
  created_at REAL NOT NULL
);
CREATE UNIQUE INDEX fits_one_current ON fits(is_current) WHERE is_current = 1;
CREATE TABLE clusters(
  id INTEGER PRIMARY KEY,
  first_fit INTEGER NOT NULL REFERENCES fits(id),
  retired_fit INTEGER REFERENCES fits(id),
  name TEXT
);
CREATE TABLE centers(
  fit_id INTEGER NOT NULL REFERENCES fits(id),
  label INTEGER NOT NULL,
  cluster_id INTEGER NOT NULL REFERENCES clusters(id),
  size INTEGER NOT NULL,
  vector BLOB NOT NULL,
  PRIMARY KEY(fit_id, label)
);

CREATE TABLE moves(
  id INTEGER PRIMARY KEY,
  file_id INTEGER NOT NULL REFERENCES files(id),
  op TEXT NOT NULL,
  src_root TEXT NOT NULL,
  src BLOB NOT NULL,
  inode INTEGER NOT NULL,
  size_bytes INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  sha256 BLOB NOT NULL,
  dst BLOB NOT NULL,
  phase TEXT NOT NULL DEFAULT 'planned' CHECK(
    phase IN ('planned', 'copied', 'done', 'gone', 'changed')),
  error TEXT NOT NULL DEFAULT '',
  state_after TEXT NOT NULL,
  cluster_id INTEGER,
  distance REAL,
  fit_id INTEGER,
  reason TEXT NOT NULL DEFAULT '',
  planned_at REAL NOT NULL,
  done_at REAL
);
CREATE INDEX moves_open ON moves(phase) WHERE phase IN ('planned', 'copied');
CREATE INDEX moves_file ON moves(file_id);

CREATE TABLE requests(
  id INTEGER PRIMARY KEY,
  verb TEXT NOT NULL,
  params TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'new' CHECK(state IN ('new', 'taken', 'done', 'failed')),
  progress TEXT NOT NULL DEFAULT '',
  result TEXT NOT NULL DEFAULT '{}',
  created_at REAL NOT NULL,
  done_at REAL
);
CREATE TABLE heartbeat(
  id INTEGER PRIMARY KEY CHECK(id = 1),
  pid INTEGER NOT NULL,
  phase TEXT NOT NULL,
  started_at REAL NOT NULL,
  beat_at REAL NOT NULL,
  queue INTEGER NOT NULL,
  images_per_s REAL,
  watching TEXT NOT NULL,
  note TEXT NOT NULL
);
CREATE TABLE errors(
  id INTEGER PRIMARY KEY,
  at REAL NOT NULL,
  event TEXT NOT NULL,
  detail TEXT NOT NULL
);
""",
)

# Which network made a row, and what the daemon's model runs on.
_step(
    "m002_backbones",
    """
ALTER TABLE extractors ADD COLUMN backbone TEXT NOT NULL DEFAULT 'vgg16';
ALTER TABLE heartbeat ADD COLUMN model_busy REAL;
ALTER TABLE heartbeat ADD COLUMN runs_on TEXT NOT NULL DEFAULT '';
""",
)

# Counts of the files by state and cluster, and an index of those that wait.
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
_step("m003_counts", _COUNTS)

# The batches of moves are numbered, a move may end in the inbox, and a file be ``undone``.
_step(
    "m004_undo",
    """
ALTER TABLE moves ADD COLUMN batch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE moves ADD COLUMN dst_root TEXT NOT NULL DEFAULT 'target';
ALTER TABLE moves ADD COLUMN undoes INTEGER REFERENCES moves(id);
CREATE INDEX moves_batch ON moves(batch);
""",
    new_state="undone",
)

# Proposals, names of folders, pins, hashes of near-duplicates, and companions.
#
# A fit says what became of it (``state``), which one it followed (``former_id``; those of an
# older imgsortd followed one another), when and at how many pictures that was decided.
# ``decision`` numbers the decisions, for a clock may be set back; ``last_file`` is the newest
# file at it. A split, or a new cluster for pictures in review, says which cluster it is
# ``about``, and of how many pictures. ``fit_flows`` counts the pictures that each cluster gives
# to each; those that come from none were in review. A pin without a cluster keeps a picture in
# review.
_step(
    "m005_clusters_that_stay",
    """
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
ALTER TABLE fits ADD COLUMN decision INTEGER;
ALTER TABLE fits ADD COLUMN last_file INTEGER NOT NULL DEFAULT 0;
ALTER TABLE fits ADD COLUMN about_id INTEGER;
ALTER TABLE fits ADD COLUMN about_images INTEGER;
UPDATE fits SET former_id = (SELECT max(f.id) FROM fits AS f WHERE f.id < fits.id);
CREATE TABLE fit_flows(
  fit_id INTEGER NOT NULL REFERENCES fits(id),
  old_id INTEGER,
  new_id INTEGER NOT NULL,
  pictures INTEGER NOT NULL
);
CREATE INDEX fit_flows_fit ON fit_flows(fit_id);
CREATE INDEX proposed_changes_file ON proposed_changes(file_id);
""",
    new_state="companion",
)

# What is in the inbox and is not sorted, with the reason, for ``status``.
_step(
    "m006_left_alone",
    """
CREATE TABLE left_alone(
  name BLOB PRIMARY KEY,
  reason TEXT NOT NULL
) WITHOUT ROWID;
""",
)

# What a page of pictures needs: how large each is upright, as it was found while it was decoded
# (NULL for pictures sorted before there were sizes), and an index that has all that counts,
# lists and orders of a cluster's pictures ask for, so that a page reads no row of ``files`` in
# vain.
_step(
    "m007_pictures",
    """
ALTER TABLE picture_hashes ADD COLUMN width_px INTEGER;
ALTER TABLE picture_hashes ADD COLUMN height_px INTEGER;
CREATE INDEX files_shown ON files(cluster_id, distance, done_at, state)
  WHERE cluster_id IS NOT NULL AND state IN ('sorted', 'duplicate');
""",
)

# What a person's placing, or its undo, gives to a picture, and what it had before: a row for
# each such move. A pin is of bytes, not of a file, and the row of a file forgets where it
# stood: without this, an undo could bring back the file, and not what was meant by it. A move
# that is undone has a row for its undo, too, so that the undo can be undone.
_step(
    "m008_placings",
    """
CREATE TABLE placings(
  move_id INTEGER PRIMARY KEY REFERENCES moves(id) ON DELETE CASCADE,
  state TEXT NOT NULL,
  cluster_id INTEGER,
  distance REAL,
  fit_id INTEGER,
  reason TEXT NOT NULL,
  was_pinned INTEGER NOT NULL,
  was_pinned_to INTEGER,
  is_pinned INTEGER NOT NULL,
  is_pinned_to INTEGER
);
""",
)

# Since when a pin was; NULL where it is of the moment in which the move is made, or is no pin.
_step(
    "m009_pin_times",
    """
ALTER TABLE placings ADD COLUMN was_pinned_at REAL;
ALTER TABLE placings ADD COLUMN is_pinned_at REAL;
""",
)

# In which batch files followed from one fit to another: undoing it switches back. A proposal
# that waits says where pictures were nearest, not where they stand: it is let go.
_step(
    "m010_files_that_follow",
    """
CREATE TABLE fit_switches(
  batch INTEGER PRIMARY KEY,
  fit_id INTEGER NOT NULL REFERENCES fits(id),
  former_id INTEGER NOT NULL REFERENCES fits(id)
);
UPDATE fits SET state = 'replaced', note = 'made by an older imgsortd' WHERE state = 'proposed';
DELETE FROM proposed_changes WHERE fit_id IN (SELECT id FROM fits WHERE state = 'replaced');
""",
)

# Which folder a name is of, and what is on disk, each in a column of its own.
#
# ``roots`` are the inboxes and targets ever used: where each stood when it was last used, and
# what it is known by wherever it stands, its filesystem and inode; a target by the ``mark`` that
# is written in it, too. One of each kind is in use. The first two have no path yet: they are
# those of an older imgsortd, or of a new library, until it meets its folders.
#
# ``files``: ``src`` is the name that a file came with, in the inbox ``inbox_id``, which is NULL
# where nobody knows from where it came (it was found in target); ``in_inbox`` tells whether it
# stands there. ``dst`` is its last name in the target ``target_id``, ``in_target`` whether it
# stands there, and ``op`` how it was put there, NULL where nobody knows.
#
# ``moves.mark`` begins the names of what a move makes on its way. ``library.batch`` is the last
# number that was given to a batch, ``life`` what tells that the file beside the database has
# gone on without it: it was put back from a copy.
_step(
    "m011_roots",
    """
CREATE TABLE roots(
  id INTEGER PRIMARY KEY,
  kind TEXT NOT NULL CHECK(kind IN ('inbox', 'target')),
  path BLOB NOT NULL DEFAULT x'',
  filesystem TEXT,
  inode INTEGER,
  mark TEXT,
  is_current INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX roots_one_current ON roots(kind) WHERE is_current = 1;
INSERT INTO roots(id, kind, is_current) VALUES (1, 'inbox', 1), (2, 'target', 1);

ALTER TABLE files ADD COLUMN inbox_id INTEGER REFERENCES roots(id);
ALTER TABLE files ADD COLUMN target_id INTEGER REFERENCES roots(id);
ALTER TABLE files ADD COLUMN op TEXT;
ALTER TABLE files ADD COLUMN in_target INTEGER NOT NULL DEFAULT 0;
ALTER TABLE files RENAME COLUMN stays TO in_inbox;
UPDATE files SET
  in_inbox = in_inbox OR state = 'pending',
  in_target = dst IS NOT NULL AND state NOT IN ('pending', 'gone'),
  target_id = iif(dst IS NULL, NULL, 2),
  op = (SELECT op FROM moves WHERE file_id = files.id AND phase = 'done' AND src_root = 'inbox'
        ORDER BY id DESC LIMIT 1),
  inbox_id = iif(dst IS NULL OR in_inbox OR state = 'pending' OR EXISTS (SELECT 1 FROM moves
        WHERE file_id = files.id AND 'inbox' IN (src_root, dst_root)), 1, NULL);
DROP INDEX files_one_pending;
CREATE UNIQUE INDEX files_one_pending ON files(inbox_id, src) WHERE state = 'pending';

ALTER TABLE moves ADD COLUMN src_id INTEGER REFERENCES roots(id);
ALTER TABLE moves ADD COLUMN dst_id INTEGER REFERENCES roots(id);
ALTER TABLE moves ADD COLUMN mark TEXT NOT NULL DEFAULT '';
UPDATE moves SET src_id = iif(src_root = 'inbox', 1, 2), dst_id = iif(dst_root = 'inbox', 1, 2),
  mark = CAST(id AS TEXT);

CREATE TABLE library(
  id INTEGER PRIMARY KEY CHECK(id = 1),
  batch INTEGER NOT NULL,
  life TEXT NOT NULL DEFAULT ''
);
INSERT INTO library(id, batch) VALUES (1, (SELECT coalesce(max(batch), 0) FROM
  (SELECT batch FROM moves UNION ALL SELECT batch FROM fit_switches)));
""",
)
