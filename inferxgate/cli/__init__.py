"""The terminal door: one file per command, loaded by name."""
