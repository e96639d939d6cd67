"""What is said, in nobody's wire format: values only."""
