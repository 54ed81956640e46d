"""From bytes to pixels, hashes and small pictures."""
