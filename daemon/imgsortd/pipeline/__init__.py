"""The straight line of a file: read, compute, route, move."""
