"""The way out: one protocol, an engine per URL scheme; network failures become errors."""
