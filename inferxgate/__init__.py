"""InferXgate: one OpenAI-compatible API in front of many providers of language models."""

__version__ = "0.1.0"
