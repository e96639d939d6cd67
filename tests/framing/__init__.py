"""Tests of how bytes become events."""
