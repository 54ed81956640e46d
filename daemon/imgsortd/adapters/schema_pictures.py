"""What a page of pictures needs: how large each is, and the files of a cluster in order.

The size is that of the upright picture, as it was found while it was decoded; NULL for pictures
that were sorted before there were sizes. ``files_shown`` has all that counts, lists and orders
of a cluster's pictures ask for, so that a page of them reads no row of ``files`` in vain.
"""

PICTURES = """
ALTER TABLE picture_hashes ADD COLUMN width_px INTEGER;
ALTER TABLE picture_hashes ADD COLUMN height_px INTEGER;
CREATE INDEX files_shown ON files(cluster_id, distance, done_at, state)
  WHERE cluster_id IS NOT NULL AND state IN ('sorted', 'duplicate');
"""
