"""Finding what a person means by a word: a user by address or id, a key by id, prefix, name or the secret itself."""

from __future__ import annotations

from collections.abc import Sequence

from inferxgate.accounts.keys import hash_secret, looks_like_key
from inferxgate.cli.failures import CommandFailed
from inferxgate.store.protocol import Store
from inferxgate.store.records import ApiKey, User

_SHORTEST_PREFIX = len("ix-api-key-") + 1


def find_user(store: Store, word: str) -> User:
    """The user with this address or id. Raises ``CommandFailed``."""
    user = store.user(word) or store.user_by_email(word.strip().lower())
    if user is None:
        raise CommandFailed(f"There is no user '{word}'; 'inferxgate users list' shows all")
    return user


def find_key(store: Store, word: str) -> ApiKey:
    """The one key that the word names; of several, the one that is not revoked. Raises ``CommandFailed``."""
    if (known := store.key(word)) is not None:
        return known  # ids come first: a name is anyone's to choose
    if looks_like_key(word):
        found = store.key_by_hash(hash_secret(word))
        matches = [found] if found is not None else []
        word = "with this secret"
    else:
        matches = [key for key in store.keys(include_revoked=True) if _means(word, key)]
        word = f"'{word}'"
    matches = _best(matches)
    match matches:
        case [key]:
            return key
        case []:
            raise CommandFailed(f"There is no key {word}; 'inferxgate keys list --all' shows all")
        case _:
            named = ", ".join(f"{key.id} ({key.key_prefix}{f', {key.name}' if key.name else ''})" for key in matches)
            raise CommandFailed(f"{word} may mean {named}; give the id")


def _means(word: str, key: ApiKey) -> bool:
    shown = word.removesuffix("...")  # as lists show it
    prefixed = len(shown) >= _SHORTEST_PREFIX and key.key_prefix.startswith(shown)
    return word == key.name or prefixed


def _best(matches: Sequence[ApiKey]) -> list[ApiKey]:
    return [key for key in matches if key.revoked_at_ms is None] or list(matches)
