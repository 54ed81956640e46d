"""The web page: a process of its own over the same SQLite file, which it only reads."""
