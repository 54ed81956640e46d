"""Moves: planned, journalled, carried out, undone."""
