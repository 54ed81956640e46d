"""The tables as the first version made them; the steps of ``migrations`` follow."""

from __future__ import annotations

FIRST = """
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
"""
