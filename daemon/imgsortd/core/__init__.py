"""Decisions only: no clock, files, logging, torch or database in here."""
