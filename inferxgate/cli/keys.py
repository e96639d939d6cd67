"""``inferxgate keys``: API keys, made and changed on the store itself, whether or not a server runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from inferxgate.accounts import keys as accounts
from inferxgate.cli import options
from inferxgate.cli.failures import CommandFailed, WrongUsage
from inferxgate.cli.options import BudgetPeriodOption, Command, ConfigOption, JsonOption, opened_store
from inferxgate.cli.output import (
    Column,
    ago,
    note,
    plural,
    print_fields,
    print_json,
    print_line,
    print_table,
    right,
    short_time,
)
from inferxgate.cli.references import find_key, find_user
from inferxgate.cli.values import (
    budget_words,
    is_cut_budget,
    key_limit,
    limit_short,
    now_ms,
    parse_budget,
    parse_expiry,
    parse_limit,
    parse_models,
    spent_words,
    usage,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inferxgate.config import Loaded
    from inferxgate.store.protocol import Store
    from inferxgate.store.records import ApiKey, BudgetPeriod, User

app = options.new_app("Create, list, change, rotate and revoke API keys.")

KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The key's id, prefix or name.", show_default=False)]
NameOption = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What people call it.")]
RpmOption = Annotated[
    str | None,
    typer.Option("--rpm", metavar="NUMBER", help="Requests a minute; 0: unlimited; 'default': the gateway's."),
]
ModelsOption = Annotated[
    str | None,
    typer.Option("--models", metavar="A,B", help="The only models it may use, such as echo,gpt-*; 'all': every one."),
]
ExpiresOption = Annotated[
    str | None,
    typer.Option("--expires", metavar="WHEN", help="30d, 12h, a date or an ISO time; 'never'."),
]
TpmOption = Annotated[
    str | None, typer.Option("--tpm", metavar="NUMBER", help="Tokens a minute; 0: unlimited; 'default': the gateway's.")
]
ParallelOption = Annotated[
    str | None,
    typer.Option("--parallel", metavar="NUMBER", help="Requests at once; 0: unlimited; 'default': the gateway's."),
]
BudgetOption = Annotated[
    str | None, typer.Option("--budget", metavar="DOLLARS", help="What it may spend, such as 10 or 10.50; or 'none'.")
]
_LIMITS = {"rpm": "rate_limit_rpm", "tpm": "rate_limit_tpm", "parallel": "max_parallel_requests"}
"""The options of limits, and what they set."""


@app.command(cls=Command)
def create(
    *,
    name: NameOption = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Whose it is (address or id); else nobody's.")
    ] = None,
    rpm: RpmOption = None,
    tpm: TpmOption = None,
    parallel: ParallelOption = None,
    budget: BudgetOption = None,
    budget_period: BudgetPeriodOption = None,
    models: ModelsOption = None,
    expires: ExpiresOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Create a key and print it: this once, since only its hash is kept."""
    with usage():
        name = accounts.validate_name(name)
        limits = _given(rpm=rpm, tpm=tpm, parallel=parallel, budget=budget, budget_period=budget_period)
        allowed = parse_models(models)
    if budget_period is not None and limits.get("max_budget_nanos") is None:
        raise WrongUsage("--budget-period needs --budget beside it")
    expires_at_ms = parse_expiry(expires)
    with opened_store(config) as (loaded, store):
        owner = find_user(store, user) if user is not None else None
        key, secret = accounts.create_key(
            store,
            name=name,
            user_id=owner.id if owner else None,
            allowed_models=allowed,
            expires_at_ms=expires_at_ms,
            keys_per_user=None,  # the operator is bound by no number
            **{"rate_limit_rpm": None, **limits},
        )
        _remark(store, key, owner, loaded, changes={"name": name, **limits})
        if as_json:
            print_json({"key": secret, **_as_json(store, key)})
            return
        print_line(secret)
        note(f"Created {key.id}{f' for {owner.email}' if owner else ''}. It is shown this once; keep it safe.")


@app.command("list", cls=Command)
def list_keys(
    *,
    show_all: Annotated[bool, typer.Option("--all", help="With the revoked ones.")] = False,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Only this user's (address or id).")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the keys, oldest first."""
    with opened_store(config) as (loaded, store):
        owner = find_user(store, user) if user is not None else None
        keys = store.keys(user_id=owner.id if owner else None, include_revoked=show_all)
        spent = accounts.spend_of(store, keys)
        owners = {each.id: each for each in store.users()}
    if as_json:
        from inferxgate.cli.objects import key_for_operator

        print_json([key_for_operator(key, spent[key.id]) for key in keys])
        return
    if not keys:
        note("There is no key here yet: 'inferxgate keys create' makes one.")
        return
    defaults, now = loaded.settings.limits.of_keys, now_ms()
    left_out = print_table(
        [
            Column("Key", wraps=False),
            "Name",
            Column("User", wraps=False),
            right("RPM"),
            right("TPM", given_up=2),
            right("Parallel", given_up=1),
            right("Spent", given_up=4),
            Column("Last used", wraps=False, given_up=3),
            Column("State", wraps=False),
        ],
        [
            [
                key.key_prefix,
                key.name or "",
                owner.email if owner else "",
                *(key_limit(key, owner, field, defaults).short() for field in _LIMITS.values()),
                spent_words(key, spent[key.id]),
                ago(key.last_used_at_ms, now, none="never"),
                _state(key),
            ]
            for key, owner in ((key, owners.get(key.user_id or "")) for key in keys)
        ],
    )
    if left_out:
        note(f"No room for: {', '.join(left_out)}; --json has all.")


@app.command(cls=Command)
def show(*, key: KeyArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show one key."""
    with opened_store(config) as (loaded, store):
        found = find_key(store, key)
        if as_json:
            print_json(_as_json(store, found))
            return
        owner = store.user(found.user_id) if found.user_id else None
        defaults = loaded.settings.limits.of_keys
        limits = {option: key_limit(found, owner, field, defaults).words() for option, field in _LIMITS.items()}
        print_fields(
            [
                ("Id", found.id),
                ("Key", f"{found.key_prefix}..."),
                ("Name", found.name or ""),
                ("User", owner.email if owner else found.user_id or "nobody"),
                ("State", _state(found)),
                ("RPM", limits["rpm"]),
                ("TPM", limits["tpm"]),
                ("Parallel", limits["parallel"]),
                ("Budget", budget_words(found)),
                ("Spent", spent_words(found, accounts.spend_of(store, [found])[found.id])),
                ("Models", ", ".join(found.allowed_models) if found.allowed_models is not None else "all"),
                ("Expires", short_time(found.expires_at_ms, none="never")),
                ("Created", short_time(found.created_at_ms, none="")),
                ("Last used", short_time(found.last_used_at_ms, none="never")),
            ]
        )


@app.command(cls=Command)
def update(
    *,
    key: KeyArgument,
    name: NameOption = None,
    rpm: RpmOption = None,
    tpm: TpmOption = None,
    parallel: ParallelOption = None,
    budget: BudgetOption = None,
    budget_period: BudgetPeriodOption = None,
    models: ModelsOption = None,
    expires: ExpiresOption = None,
    block: Annotated[
        bool | None, typer.Option("--block/--unblock", help="Refuse it for now, or accept it again.")
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Change a key; what is not named stays. In force within a second, also in a running server."""
    with usage():
        changes = _given(rpm=rpm, tpm=tpm, parallel=parallel, budget=budget, budget_period=budget_period)
        if name is not None:
            changes["name"] = accounts.validate_name(name)
        if models is not None:
            changes["allowed_models"] = parse_models(models)
        if expires is not None:
            changes["expires_at_ms"] = parse_expiry(expires)
        if block is not None:
            changes["blocked"] = block
    if not changes:
        given = "--name, --rpm, --tpm, --parallel, --budget, --budget-period, --models, --expires, --block or --unblock"
        raise WrongUsage(f"There is nothing to change: give {given}")
    with opened_store(config) as (loaded, store):
        found = _live(find_key(store, key))
        changed = store.update_key(found.id, changes)
        if changed is None:
            raise CommandFailed(f"The key {found.id} has just been removed")
        owner = store.user(changed.user_id) if changed.user_id else None
        _remark(store, changed, owner, loaded, changes=changes)
        if as_json:
            print_json(_as_json(store, changed))
        else:
            note(f"Changed {_called(changed)}.")


@app.command(cls=Command)
def revoke(*, key: KeyArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """End a key for good. In force within a second, also in a running server."""
    with opened_store(config) as (_, store):
        revoked = accounts.revoke_key(store, _live(find_key(store, key)).id)
        if as_json:
            print_json(_as_json(store, revoked))
        else:
            note(f"Revoked {_called(revoked)}.")


@app.command(cls=Command)
def rotate(*, key: KeyArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Give a key a new secret and print it; the old one stops within a second."""
    with opened_store(config) as (_, store):
        rotated, secret = accounts.rotate_key(store, _live(find_key(store, key)).id)
        if as_json:
            print_json({"key": secret, **_as_json(store, rotated)})
            return
        print_line(secret)
        note(f"Rotated {_called(rotated)}. The new secret is shown this once; the old one has ended.")


def _given(*, budget: str | None, budget_period: BudgetPeriod | None, **limits: str | None) -> dict[str, Any]:
    """What the options say of limits and budget, as fields of a key; without those that were not given."""
    changes: dict[str, Any] = {
        _LIMITS[option]: parse_limit(text, option) for option, text in limits.items() if text is not None
    }
    if budget is not None:
        changes["max_budget_nanos"] = parse_budget(budget)
    if budget_period is not None:
        changes["budget_period"] = budget_period
    return changes


def _remark(store: Store, key: ApiKey, owner: User | None, loaded: Loaded, *, changes: Mapping[str, Any]) -> None:
    """Say what is allowed, and yet not what was meant: of the name and the limits, where they have just been given."""
    live = store.keys(user_id=None) if key.name and changes.get("name") else []
    twins = sum(other.name == key.name and other.id != key.id for other in live)
    if twins:
        note(f"Note: {plural(twins, 'other key')} called '{key.name}'; to show or revoke one of them, give its id.")
    if "budget_period" in changes and key.max_budget_nanos is None:
        note("Note: the key has no budget, so its period means nothing yet; --budget DOLLARS sets one.")
    for option, field in _LIMITS.items():
        limit = key_limit(key, owner, field, loaded.settings.limits.of_keys)
        if owner is not None and changes.get(field) is not None and limit.is_cut:
            note(
                f"Warning: {owner.email} has a ceiling of {limit_short(limit.ceiling, limit.default)}"
                f" {accounts.LIMITS[field]}, so the key's own {limit_short(limit.own, limit.default)} is not reached;"
                f" 'inferxgate users update {owner.email} --{option} NUMBER' changes the ceiling."
            )
    if owner is not None and changes.get("max_budget_nanos") is not None and is_cut_budget(key, owner):
        note(
            f"Warning: {owner.email} has a budget of {budget_words(owner)} for all keys together, so the key's own"
            f" {budget_words(key)} is not reached; 'inferxgate users update {owner.email} --budget DOLLARS' changes it."
        )


def _live(key: ApiKey) -> ApiKey:
    if key.revoked_at_ms is not None:
        raise CommandFailed(f"{_called(key)} was revoked already, on {short_time(key.revoked_at_ms, none='')}")
    return key


def _called(key: ApiKey) -> str:
    return f"{key.id} ({key.name or key.key_prefix})"


def _as_json(store: Store, key: ApiKey) -> dict[str, Any]:
    from inferxgate.cli.objects import key_for_operator

    return key_for_operator(key, accounts.spend_of(store, [key])[key.id])


def _state(key: ApiKey) -> str:
    if key.revoked_at_ms is not None:
        return "revoked"
    if key.expires_at_ms is not None and key.expires_at_ms <= now_ms():
        return "expired"
    return "blocked" if key.blocked else "active"
