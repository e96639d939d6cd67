"""The one-file program and the scripts that build it."""
