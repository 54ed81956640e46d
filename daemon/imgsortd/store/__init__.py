"""The database: a module for each group of tables."""
