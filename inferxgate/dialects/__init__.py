"""How an API spells it, both ends in one file; pure functions."""
