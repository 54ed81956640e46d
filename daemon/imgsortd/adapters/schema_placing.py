"""What a person's placing, or its undo, gives to a picture, and what it had before.

One row for each such move. A pin is of bytes, not of a file, and the row of a file forgets
where it stood: without this, an undo could bring back the file, and not what was meant by it.
A move that is undone has a row for its undo, too, so that the undo can be undone.
"""

PLACING = """
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
"""

# NULL where the pin is of the moment in which the move is made, or is no pin.
PIN_TIMES = """
ALTER TABLE placings ADD COLUMN was_pinned_at REAL;
ALTER TABLE placings ADD COLUMN is_pinned_at REAL;
"""
