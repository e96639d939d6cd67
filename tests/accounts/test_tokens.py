"""Tokens: what we signed, for as long as we said, and nothing that somebody else made up."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferxgate.accounts.tokens import Claims, Tokens, load_or_create_secret
from inferxgate.errors import GatewayError, StartError
from tests.support.stores import new_user

SECRET = "a secret of the tests, long enough for HS512 so that forging with it warns of nothing"
NOW = int(time.time())
TOKENS = Tokens(SECRET, expires_seconds=3600)
USER = new_user(id="user_1", role="admin", token_version=3)
GOOD: dict[str, Any] = {"sub": "user_1", "iat": NOW, "exp": NOW + 600, "role": "user", "ver": 1}


def forged(claims: dict[str, Any], **how: Any) -> str:
    return jwt.encode(claims, how.pop("key", SECRET), algorithm=how.pop("algorithm", "HS256"), **how)


def raw(header: bytes, payload: bytes, signature: bytes = b"x" * 32) -> str:
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (header, payload, signature))


def refused(token: str) -> GatewayError:
    with pytest.raises(GatewayError) as error:
        TOKENS.verify(token)
    assert (error.value.status, error.value.code) == (401, "invalid_token")
    assert error.value.__cause__ is None
    return error.value


def test_a_token_says_who_and_until_when() -> None:
    token = TOKENS.issue(USER, NOW + 0.75)
    assert TOKENS.verify(token) == Claims("user_1", 3, (NOW + 3600) * 1000)
    assert jwt.get_unverified_header(token)["alg"] == "HS256"
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims == {"sub": "user_1", "iat": NOW, "exp": NOW + 3600, "role": "admin", "ver": 3}
    assert TOKENS.verify(forged(GOOD)) == Claims("user_1", 1, (NOW + 600) * 1000)


def test_an_expired_token_says_so() -> None:
    token = TOKENS.issue(USER, NOW - 7200)
    assert refused(token).message == "The token has expired; sign in again."


@pytest.mark.parametrize("claim", GOOD)
def test_every_claim_is_required(claim: str) -> None:
    refused(forged({name: value for name, value in GOOD.items() if name != claim}))


@pytest.mark.parametrize(
    "change",
    [
        {"sub": 5},
        {"sub": None},
        {"ver": "1"},
        {"ver": None},
        {"exp": "soon"},
        {"exp": float("inf")},
        {"exp": NOW + 600.5},
        {"iat": NOW + 10_000},
        {"nbf": NOW + 10_000},
        {"exp": NOW},
    ],
    ids=range(10),
)
def test_claims_of_another_kind_are_refused_though_signed(change: dict[str, Any]) -> None:
    refused(forged({**GOOD, **change}))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512", "none"])
def test_no_other_algorithm_is_accepted(algorithm: str) -> None:
    key = None if algorithm == "none" else SECRET
    refused(forged(GOOD, algorithm=algorithm, key=key))


def test_a_token_without_signature_is_refused_whatever_it_says_of_itself() -> None:
    payload = json.dumps(GOOD).encode()
    for name in ("none", "None", "NONE", "HS256", "RS256", "", "HS256 ", None, ["HS256"], {"a": 1}):
        refused(raw(json.dumps({"alg": name, "typ": "JWT"}).encode(), payload, b""))
        refused(raw(json.dumps({"alg": name, "typ": "JWT", "jwk": {"kty": "oct", "k": ""}}).encode(), payload))


def test_a_token_of_another_secret_is_refused() -> None:
    refused(Tokens("x" * 32, 3600).issue(USER, NOW))
    refused(forged(GOOD, key="x" * 32, headers={"kid": "../../dev/null"}))


def test_every_changed_character_is_noticed() -> None:
    token = TOKENS.issue(USER, NOW)
    for place, character in enumerate(token):
        other = "A" if character != "A" else "Q"
        if place != len(token) - 1:  # the last character has bits that mean nothing
            refused(token[:place] + other + token[place + 1 :])


@given(text=st.text(max_size=60))
@example(text="")
@example(text="..")
@example(text="a.b.c")
@example(text="\ud800.\ud800.\ud800")
@example(text="é.é.é")
@example(text=raw(b"[" * 3_000, b"{}"))
@example(text=raw(b'{"alg":"HS256","x":' + b"[" * 3_000, b"{}"))
@example(text=raw(b'{"alg":"HS256"}', b"[" * 3_000))
@example(text=raw(b'{"alg":"HS256","exp":' + b"1" * 5_000 + b"}", b"{}"))
@example(text=raw(b'{"alg":"HS256","crit":["exp"]}', b"{}"))
@example(text=raw(b"\xff\xfe", b"\xff"))
@example(text=raw(b"5", b"5"))
@example(text=raw(b"null", b"null"))
def test_whatever_comes_is_refused_and_nothing_else(text: str) -> None:
    refused(text)
    refused(f"{text}.{text}.{text}")


def test_signed_nonsense_is_refused() -> None:
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    algorithm = jwt.get_algorithm_by_name("HS256")
    for payload in (b"", b"null", b"[]", b"[" * 3_000, b'{"exp":' + b"9" * 5_000 + b"}", b"\xff"):
        signed = header + b"." + base64.urlsafe_b64encode(payload).rstrip(b"=")
        signature = algorithm.sign(signed, algorithm.prepare_key(SECRET))
        refused((signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode())


@pytest.mark.parametrize("secret", ["", "secret", "x" * 31])
def test_a_short_secret_stops_the_start(secret: str) -> None:
    with pytest.raises(StartError, match=r"auth\.jwt_secret must have at least 32 bytes; make one with") as error:
        Tokens(secret, 3600)
    assert "\n" not in str(error.value)
    Tokens("x" * 32, 3600)
    Tokens("ü" * 16, 3600)


def test_the_secret_of_a_folder_is_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    secret = load_or_create_secret(folder)
    assert len(secret) >= 43
    assert load_or_create_secret(folder) == secret
    assert [file.name for file in folder.iterdir()] == ["jwt_secret"]
    assert stat.S_IMODE((folder / "jwt_secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert load_or_create_secret(tmp_path / "other") != secret
    Tokens(secret, 1)


def test_a_secret_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "jwt_secret").write_text(f"  {SECRET}\n")
    (tmp_path / "jwt_secret").chmod(0o644)
    assert load_or_create_secret(tmp_path) == SECRET
    assert stat.S_IMODE((tmp_path / "jwt_secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"\xff" * 64])
def test_a_file_that_holds_no_secret_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "jwt_secret").write_bytes(content)
    with pytest.raises(StartError, match="holds no secret of 32 bytes or more; delete it to have a new one made"):
        load_or_create_secret(tmp_path)
    assert (tmp_path / "jwt_secret").read_bytes() == content


def test_a_folder_in_place_of_the_secret_is_named(tmp_path: Path) -> None:
    (tmp_path / "jwt_secret").mkdir()
    with pytest.raises(StartError, match=r"cannot use .*jwt_secret: Is a directory; make it readable, or set"):
        load_or_create_secret(tmp_path)


def test_processes_that_start_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from inferxgate.accounts.tokens import load_or_create_secret

print("ready", flush=True)
for line in sys.stdin:
    print(load_or_create_secret(Path(line.rstrip())), flush=True)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for number in range(20):
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{tmp_path / str(number)}\n")
            process.stdin.flush()
        secrets = {process.stdout.readline() for process in processes if process.stdout is not None}
        assert len(secrets) == 1
        assert len(secrets.pop()) > 43
    for process in processes:
        process.communicate()
