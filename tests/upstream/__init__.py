"""Tests of the way out to providers."""
