"""What happens to a request, from a known caller to the last byte and its record."""
