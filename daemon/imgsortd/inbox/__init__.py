"""Which files are in the inbox, finished, and wanted."""
