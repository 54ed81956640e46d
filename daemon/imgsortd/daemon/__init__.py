"""The process, its loop, and its desk of requests."""
