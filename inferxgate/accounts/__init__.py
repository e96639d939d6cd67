"""Who may: keys, passwords, tokens, users."""
