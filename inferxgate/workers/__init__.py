"""What the workers agree on: limits, in-flight counts, metrics, the change stamp."""
