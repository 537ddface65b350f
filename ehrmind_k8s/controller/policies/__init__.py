"""One decision a file; each takes and returns plain data."""
