"""What a model is: its vendor, limits and prices, with sources and overrides."""
