"""``inferxgate users``: the people who may sign in, changed on the store itself, whether or not a server runs."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from inferxgate.accounts import users as accounts
from inferxgate.accounts.keys import validate_name
from inferxgate.cli import options
from inferxgate.cli.failures import CommandFailed, WrongUsage
from inferxgate.cli.options import BudgetPeriodOption, Command, ConfigOption, JsonOption, opened_store
from inferxgate.cli.output import (
    Column,
    ago,
    can_ask,
    note,
    plural,
    print_fields,
    print_json,
    print_table,
    right,
    short_time,
)
from inferxgate.cli.references import find_user
from inferxgate.cli.values import (
    budget_words,
    limit_short,
    limit_words,
    now_ms,
    parse_budget,
    parse_limit,
    spent_words,
    usage,
)

if TYPE_CHECKING:
    from inferxgate.store.protocol import Store
    from inferxgate.store.records import User

app = options.new_app("Create, list and change the people who may sign in.")

_CEILINGS = {"rpm": "rate_limit_rpm", "tpm": "rate_limit_tpm"}
"""The options of ceilings, and what they set."""
RoleName = Literal["admin", "user"]
UserArgument = Annotated[str, typer.Argument(metavar="USER", help="The user's address or id.", show_default=False)]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, do not ask.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Even if no active admin remains.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command(cls=Command)
def create(
    *,
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="The address to sign in with.", show_default=False)],
    role: Annotated[
        RoleName | None,
        typer.Option(
            "--role", metavar="ROLE", help="admin or user; else the first one is an admin, and every later one a user."
        ),
    ] = None,
    username: Annotated[str | None, typer.Option("--username", metavar="NAME", help="What people call them.")] = None,
    password_stdin: PasswordStdin = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Create a user. Asks for the password on a terminal."""
    with usage():
        email = accounts.validate_email(email)
        username = validate_name(username, param="username")
    with opened_store(config) as (_, store):
        if store.user_by_email(email) is not None:
            raise CommandFailed(f"There is a user {email} already; 'inferxgate users passwd' sets a new password")
        hashed = _new_password_hash(from_stdin=password_stdin)
        user = accounts.register(store, email=email, password_hash=hashed, username=username, role=role)
        _report(store, user, f"Created {user.email} ({user.id}) with the role {user.role}.", as_json=as_json)


@app.command("list", cls=Command)
def list_users(*, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """List the users, oldest first."""
    with opened_store(config) as (loaded, store):
        users = store.users()
        owned = [key.user_id for key in store.keys(include_revoked=False)]
        spent = accounts.spend_of(store, users)
    defaults, now = loaded.settings.limits.of_keys, now_ms()
    if as_json:
        print_json([_as_json(user, spent[user.id]) for user in users])
    elif not users:
        note("There is no user yet: 'inferxgate users create EMAIL' makes one, the first as admin.")
    else:
        left_out = print_table(
            [
                Column("E-mail", wraps=False),
                "Username",
                Column("Role", wraps=False),
                right("RPM"),
                right("TPM", given_up=1),
                right("Budget", given_up=3),
                right("Keys"),
                Column("Created", wraps=False, given_up=2),
                Column("State", wraps=False),
            ],
            [
                [
                    user.email,
                    user.username or "",
                    user.role,
                    *(limit_short(getattr(user, field), defaults[field]) for field in _CEILINGS.values()),
                    budget_words(user),
                    f"{owned.count(user.id)}",
                    ago(user.created_at_ms, now, none=""),
                    _state(user),
                ]
                for user in users
            ],
        )
        if left_out:
            note(f"No room for: {', '.join(left_out)}; --json has all.")


@app.command(cls=Command)
def show(*, user: UserArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Show one user."""
    with opened_store(config) as (loaded, store):
        found = find_user(store, user)
        keys = store.keys(user_id=found.id)
        spent = accounts.spend_of(store, [found])[found.id]
    if as_json:
        print_json(_as_json(found, spent))
        return
    defaults = loaded.settings.limits.of_keys
    print_fields(
        [
            ("Id", found.id),
            ("E-mail", found.email),
            ("Username", found.username or ""),
            ("Role", found.role),
            ("State", _state(found)),
            ("RPM", limit_words(found.rate_limit_rpm, defaults["rate_limit_rpm"])),
            ("TPM", limit_words(found.rate_limit_tpm, defaults["rate_limit_tpm"])),
            ("Budget", budget_words(found)),
            ("Spent", spent_words(found, spent)),
            ("Keys", ", ".join(key.name or f"{key.key_prefix}..." for key in keys) or "none"),
            ("Created", short_time(found.created_at_ms, none="")),
        ]
    )


@app.command(cls=Command)
def update(
    *,
    user: UserArgument,
    rpm: Annotated[
        str | None,
        typer.Option(
            "--rpm",
            metavar="NUMBER",
            help="Ceiling of requests a minute for them and each of their keys; 0: none; 'default': the gateway's.",
        ),
    ] = None,
    tpm: Annotated[
        str | None, typer.Option("--tpm", metavar="NUMBER", help="Ceiling of tokens a minute, likewise.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="DOLLARS",
            help="What they and all their keys together may spend, such as 10 or 10.50; or 'none'.",
        ),
    ] = None,
    budget_period: BudgetPeriodOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Change the ceilings of a user's limits."""
    changes: dict[str, Any] = {
        field: parse_limit(text, option)
        for (option, field), text in zip(_CEILINGS.items(), (rpm, tpm), strict=True)
        if text is not None
    }
    if budget is not None:
        changes["max_budget_nanos"] = parse_budget(budget)
    if budget_period is not None:
        changes["budget_period"] = budget_period
    if not changes:
        raise WrongUsage("There is nothing to change: give --rpm, --tpm, --budget or --budget-period")
    with opened_store(config) as (_, store):
        changed = _change(store, find_user(store, user), changes)
        if budget_period is not None and changed.max_budget_nanos is None:
            note("Note: there is no budget, so its period means nothing yet; --budget DOLLARS sets one.")
        _report(store, changed, f"Changed {changed.email}.", as_json=as_json)


@app.command(cls=Command)
def disable(
    *, user: UserArgument, force: ForceOption = False, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Shut a user and their keys out. In force within a second, also in a running server."""
    with opened_store(config) as (_, store):
        found = find_user(store, user)
        _keep_an_admin(store, found, force=force)
        changed = _change(store, found, {"disabled": True})
        _report(store, changed, f"Disabled {changed.email}.", as_json=as_json)


@app.command(cls=Command)
def enable(*, user: UserArgument, as_json: JsonOption = False, config: ConfigOption = None) -> None:
    """Let a disabled user in again."""
    with opened_store(config) as (_, store):
        changed = _change(store, find_user(store, user), {"disabled": False})
        _report(store, changed, f"Enabled {changed.email}.", as_json=as_json)


@app.command(cls=Command)
def passwd(
    *,
    user: UserArgument,
    password_stdin: PasswordStdin = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Set a new password; whoever signed in with the old one has to sign in again."""
    with opened_store(config) as (_, store):
        found = find_user(store, user)
        hashed = _new_password_hash(from_stdin=password_stdin)
        changed = _there(accounts.set_password(store, found, hashed), found)
        _report(store, changed, f"Set a new password for {changed.email}.", as_json=as_json)


@app.command(cls=Command)
def role(
    *,
    user: UserArgument,
    role: Annotated[RoleName, typer.Argument(metavar="ROLE", help="admin or user.", show_default=False)],
    force: ForceOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a user an admin, or an admin a user. In force within a second, also in a running server."""
    with opened_store(config) as (_, store):
        found = find_user(store, user)
        if role != "admin":
            _keep_an_admin(store, found, force=force)
        changed = _change(store, found, {"role": role})
        _report(store, changed, f"{changed.email} has the role {changed.role} now.", as_json=as_json)


@app.command(cls=Command)
def delete(
    *,
    user: UserArgument,
    yes: YesOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Delete a user and revoke their keys; what they used stays in the figures."""
    with opened_store(config) as (_, store):
        found = find_user(store, user)
        _keep_an_admin(store, found, force=force)
        keys = len(store.keys(user_id=found.id))
        if not yes:
            _confirm(f"Delete {found.email} and revoke {plural(keys, 'key')}?")
        if not store.delete_user(found.id, now_ms=now_ms()):
            raise CommandFailed(f"{found.email} has just been removed by someone else")
        if as_json:
            print_json({"id": found.id, "email": found.email, "deleted": True, "revoked_keys": keys})
        else:
            note(f"Deleted {found.email}; revoked {plural(keys, 'key')}.")


def _change(store: Store, user: User, changes: dict[str, Any]) -> User:
    return _there(store.update_user(user.id, changes), user)


def _there(changed: User | None, user: User) -> User:
    if changed is None:
        raise CommandFailed(f"{user.email} has just been removed by someone else")
    return changed


def _keep_an_admin(store: Store, user: User, *, force: bool) -> None:
    """Refuse to take away the last one who can sign in as an admin, unless told to."""
    if force or user.role != "admin" or user.disabled:
        return
    if not any(other.role == "admin" and not other.disabled for other in store.users() if other.id != user.id):
        raise CommandFailed(f"{user.email} is the only active admin: make another one first, or add --force")


def _new_password_hash(*, from_stdin: bool) -> str:
    # Imported when there is a password: bcrypt is dear, and most of these commands need none.
    from inferxgate.accounts.passwords import hash_password, validate_password

    with usage():
        password = validate_password(_piped_password() if from_stdin else _asked_password())
        if not from_stdin:
            _ask_again(password)
    return hash_password(password)


def _piped_password() -> str:
    line = sys.stdin.buffer.readline()
    if not line:
        raise WrongUsage("--password-stdin: there was nothing on standard input")
    try:
        return line.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise WrongUsage("--password-stdin: the password is no UTF-8 text") from error


def _asked_password(prompt: str = "Password: ") -> str:
    if not can_ask():
        raise WrongUsage("There is no terminal to ask for the password: pipe it in with --password-stdin")
    try:
        return getpass.getpass(prompt)
    except EOFError as error:
        raise CommandFailed("No password was given; nothing was changed") from error


def _ask_again(password: str) -> None:
    if _asked_password("The same again: ") != password:
        raise CommandFailed("The two passwords differ; nothing was changed")


def _confirm(question: str) -> None:
    if not can_ask():
        raise WrongUsage("There is no terminal to ask whether to go on: add --yes")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CommandFailed("Nothing was changed")


def _report(store: Store, user: User, line: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(user, accounts.spend_of(store, [user])[user.id]))
    else:
        note(line)


def _as_json(user: User, spend_nanos: int) -> dict[str, Any]:
    from inferxgate.cli.objects import user_for_operator

    return user_for_operator(user, spend_nanos)


def _state(user: User) -> str:
    return "disabled" if user.disabled else "active"
