"""Columns of ``fits`` for what a person, or the daemon, decides on a fit.

``decision`` numbers the decisions, for a clock may be set back; ``last_file`` is the newest
file at it. A split, or a new cluster for pictures in review, says which cluster it is
``about``, and of how many pictures. Fits of an older imgsortd followed one another.
``fit_flows`` counts the pictures that each cluster gives to each; those that come from none
were in review.
"""

DECISIONS = """
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
"""
