"""Columns of ``fits`` for what a person, or the daemon, decides on a fit.

``decision`` numbers the decisions, for a clock may be set back; ``last_file`` is the newest
file at it. A split, or a new cluster for pictures in review, says which cluster it is
``about``, and of how many pictures. Fits of an older imgsortd followed one another.
"""

DECISIONS = """
ALTER TABLE fits ADD COLUMN decision INTEGER;
ALTER TABLE fits ADD COLUMN last_file INTEGER NOT NULL DEFAULT 0;
ALTER TABLE fits ADD COLUMN about_id INTEGER;
ALTER TABLE fits ADD COLUMN about_images INTEGER;
UPDATE fits SET former_id = (SELECT max(f.id) FROM fits AS f WHERE f.id < fits.id);
CREATE INDEX proposed_changes_file ON proposed_changes(file_id);
"""
