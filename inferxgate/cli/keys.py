"""``inferxgate keys``: API keys, made and changed on the store itself, whether or not a server runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from inferxgate.accounts import keys as accounts
from inferxgate.cli import options
from inferxgate.cli.failures import CommandFailed, WrongUsage
from inferxgate.cli.options import Command, ConfigOption, JsonOption, opened_store
from inferxgate.cli.output import (
    NANOS_PER_DOLLAR,
    Column,
    ago,
    dollars,
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
    above_ceiling,
    limit_short,
    limit_words,
    now_ms,
    parse_expiry,
    parse_models,
    parse_rpm,
    refuse_later,
    rpm_short,
    usage,
)

if TYPE_CHECKING:
    from inferxgate.config import Loaded
    from inferxgate.store.protocol import Store
    from inferxgate.store.records import ApiKey, User

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
# Named by the interface, enforced by a later version: until then they are refused, never stored and forgotten.
TpmOption = Annotated[str | None, typer.Option("--tpm", hidden=True)]
ParallelOption = Annotated[str | None, typer.Option("--parallel", hidden=True)]
BudgetOption = Annotated[str | None, typer.Option("--budget", hidden=True)]
BudgetPeriodOption = Annotated[str | None, typer.Option("--budget-period", hidden=True)]


@app.command(cls=Command)
def create(
    *,
    name: NameOption = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="Whose it is (address or id); else nobody's.")
    ] = None,
    rpm: RpmOption = None,
    models: ModelsOption = None,
    expires: ExpiresOption = None,
    tpm: TpmOption = None,
    parallel: ParallelOption = None,
    budget: BudgetOption = None,
    budget_period: BudgetPeriodOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Create a key and print it: this once, since only its hash is kept."""
    refuse_later(tpm=tpm, parallel=parallel, budget=budget, budget_period=budget_period)
    with usage():
        name = accounts.validate_name(name)
        limit = parse_rpm(rpm)
        allowed = parse_models(models)
    expires_at_ms = parse_expiry(expires)
    with opened_store(config) as (loaded, store):
        owner = find_user(store, user) if user is not None else None
        key, secret = accounts.create_key(
            store,
            name=name,
            user_id=owner.id if owner else None,
            rate_limit_rpm=limit,
            allowed_models=allowed,
            expires_at_ms=expires_at_ms,
            keys_per_user=None,  # the operator is bound by no number
        )
        _remark(store, key, owner, loaded, named=name is not None, limited=limit is not None)
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
        spent = store.spend_by_key([key.id for key in keys], now_ms=now_ms())
        owners = {each.id: each for each in store.users()}
    if as_json:
        from inferxgate.cli.objects import key_for_operator

        print_json([key_for_operator(key, spent.get(key.id, 0)) for key in keys])
        return
    if not keys:
        note("There is no key here yet: 'inferxgate keys create' makes one.")
        return
    default, now = loaded.settings.limits.requests_per_minute, now_ms()
    print_table(
        [
            Column("Key", wraps=False),
            "Name",
            Column("User", wraps=False),
            right("RPM"),
            right("Spent", given_up=2),
            Column("Last used", wraps=False, given_up=1),
            Column("State", wraps=False),
        ],
        [
            [
                key.key_prefix,
                key.name or "",
                owner.email if owner else "",
                limit_short(key, owner, default),
                dollars(spent.get(key.id, 0) / NANOS_PER_DOLLAR),
                ago(key.last_used_at_ms, now, none="never"),
                _state(key),
            ]
            for key, owner in ((key, owners.get(key.user_id or "")) for key in keys)
        ],
    )


@app.command(cls=Command)
def show(*, key: KeyArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show one key."""
    with opened_store(config) as (loaded, store):
        found = find_key(store, key)
        if as_json:
            print_json(_as_json(store, found))
            return
        owner = store.user(found.user_id) if found.user_id else None
        spent = store.spend_by_key([found.id], now_ms=now_ms()).get(found.id, 0)
        print_fields(
            [
                ("Id", found.id),
                ("Key", f"{found.key_prefix}..."),
                ("Name", found.name or ""),
                ("User", owner.email if owner else found.user_id or "nobody"),
                ("State", _state(found)),
                ("RPM", limit_words(found, owner, loaded.settings.limits.requests_per_minute)),
                ("Models", ", ".join(found.allowed_models) if found.allowed_models is not None else "all"),
                ("Expires", short_time(found.expires_at_ms, none="never")),
                ("Spent", dollars(spent / NANOS_PER_DOLLAR)),
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
    models: ModelsOption = None,
    expires: ExpiresOption = None,
    block: Annotated[
        bool | None, typer.Option("--block/--unblock", help="Refuse it for now, or accept it again.")
    ] = None,
    tpm: TpmOption = None,
    parallel: ParallelOption = None,
    budget: BudgetOption = None,
    budget_period: BudgetPeriodOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Change a key; what is not named stays. In force within a second, also in a running server."""
    refuse_later(tpm=tpm, parallel=parallel, budget=budget, budget_period=budget_period)
    changes: dict[str, Any] = {}
    with usage():
        if name is not None:
            changes["name"] = accounts.validate_name(name)
        if rpm is not None:
            changes["rate_limit_rpm"] = parse_rpm(rpm)
        if models is not None:
            changes["allowed_models"] = parse_models(models)
        if expires is not None:
            changes["expires_at_ms"] = parse_expiry(expires)
        if block is not None:
            changes["blocked"] = block
    if not changes:
        raise WrongUsage("There is nothing to change: give --name, --rpm, --models, --expires, --block or --unblock")
    with opened_store(config) as (loaded, store):
        found = _live(find_key(store, key))
        changed = store.update_key(found.id, changes)
        if changed is None:
            raise CommandFailed(f"The key {found.id} has just been removed")
        owner = store.user(changed.user_id) if changed.user_id else None
        _remark(
            store, changed, owner, loaded, named="name" in changes, limited=changes.get("rate_limit_rpm") is not None
        )
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


def _remark(store: Store, key: ApiKey, owner: User | None, loaded: Loaded, *, named: bool, limited: bool) -> None:
    """Say what is allowed, and yet not what was meant: of the name and the limit, where they have just been given."""
    live = store.keys(user_id=None) if named and key.name else []
    twins = sum(other.name == key.name and other.id != key.id for other in live)
    if twins:
        note(f"Note: {plural(twins, 'other key')} called '{key.name}'; to show or revoke one of them, give its id.")
    default = loaded.settings.limits.requests_per_minute
    if limited and owner is not None and above_ceiling(key, owner, default):
        note(
            f"Warning: {owner.email} has a ceiling of {rpm_short(owner.rate_limit_rpm, default)} requests a minute,"
            f" so the key's own {limit_short(key, None, default)} is not reached;"
            f" 'inferxgate users update {owner.email} --rpm NUMBER' changes the ceiling."
        )


def _live(key: ApiKey) -> ApiKey:
    if key.revoked_at_ms is not None:
        raise CommandFailed(f"{_called(key)} was revoked already, on {short_time(key.revoked_at_ms, none='')}")
    return key


def _called(key: ApiKey) -> str:
    return f"{key.id} ({key.name or key.key_prefix})"


def _as_json(store: Store, key: ApiKey) -> dict[str, Any]:
    from inferxgate.cli.objects import key_for_operator

    return key_for_operator(key, store.spend_by_key([key.id], now_ms=now_ms()).get(key.id, 0))


def _state(key: ApiKey) -> str:
    if key.revoked_at_ms is not None:
        return "revoked"
    if key.expires_at_ms is not None and key.expires_at_ms <= now_ms():
        return "expired"
    return "blocked" if key.blocked else "active"
