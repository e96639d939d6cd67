"""Tests mirror the package; ``support`` is what they share."""
