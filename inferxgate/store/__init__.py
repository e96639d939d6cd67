"""What is remembered: the Store protocol, its records, and SQLite behind it."""
