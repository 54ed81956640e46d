"""Columns and an index for what shows pictures, and many of them at once.

The index has all that a grid of clusters asks of a million rows: the pictures nearest to a
center, the mean distance, and when pictures came.
"""

PICTURES = """
ALTER TABLE picture_hashes ADD COLUMN width_px INTEGER;
ALTER TABLE picture_hashes ADD COLUMN height_px INTEGER;
CREATE INDEX files_shown ON files(cluster_id, distance, done_at, state)
WHERE cluster_id IS NOT NULL AND state IN ('sorted','duplicate');
"""
