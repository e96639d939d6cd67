"""Who serves it, where, and how to sign: values and rows, no input or output."""
