"""The description is true of the running server: what it says exists, and answers in the shape that it says."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import BaseModel

from inferxgate.server import schemas
from tests.server.conftest import PASSWORD, World


@pytest.fixture(scope="module")
def description(world: World) -> dict[str, Any]:
    content: dict[str, Any] = world.client.get("/openapi.json").json()
    return content


def test_every_method_of_it_exists_and_no_other(world: World, description: dict[str, Any]) -> None:
    for path, operations in description["paths"].items():
        allow = world.client.options(path.replace("{id}", "x")).headers["Allow"]
        assert {*map(str.upper, operations)} == set(re.split(r",\s*", allow)) - {"HEAD", "OPTIONS"}


def test_whoever_asks_first_gets_what_all_others_get(world: World) -> None:
    with ThreadPoolExecutor(4) as threads:
        asked = [*threads.map(lambda _: world.client.get("/openapi.json"), range(8))]
    assert {answer.status_code for answer in asked} == {200}
    assert len({answer.content for answer in asked}) == 1


def test_every_reference_leads_somewhere(description: dict[str, Any]) -> None:
    known = set(description["components"]["schemas"])
    assert set(references(description)) <= {f"#/components/schemas/{name}" for name in known}
    assert {"RegisterBody", "KeyAnswer", "ErrorAnswer"} <= known


def references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for value in node.values() for found in references(value)]
    return [found for value in node for found in references(value)] if isinstance(node, list) else []


def test_operation_ids_are_unique_and_path_values_declared(description: dict[str, Any]) -> None:
    ids = []
    for path, operations in description["paths"].items():
        for operation in operations.values():
            ids.append(operation["operationId"])
            declared = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"}
            assert declared == set(re.findall(r"\{(\w+)\}", path))
    assert len(ids) == len(set(ids))


def test_who_needs_a_credential_is_said(world: World, description: dict[str, Any]) -> None:
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            answer = world.client.request(method, path.replace("{id}", "x"))
            assert (answer.status_code == 401) == bool(operation["security"]), (method, path)


def test_answers_have_the_described_shape(world: World) -> None:

    def check(model: type[BaseModel], content: Any) -> None:
        fields = {name for name, field in model.model_fields.items() if field.is_required()}
        assert fields <= set(content) <= set(model.model_fields), model.__name__
        model.model_validate(content)

    admin = world.person("admin", password=True)
    email = f"shape{admin.user.id}@example.com".replace("_", "")
    check(
        schemas.RegisterAnswer,
        world.client.post("/auth/register", json={"email": email, "password": PASSWORD}).json(),
    )
    check(schemas.LoginAnswer, world.client.post("/auth/login", json={"email": email, "password": PASSWORD}).json())
    made = world.client.post("/auth/keys", json={"name": "x", "expires_at": 4e9}, headers=admin.headers).json()
    check(schemas.NewKeyAnswer, made)
    assert made["expires_at"] == "2096-10-02T07:06:40Z"
    for model, path in (
        (schemas.UserAnswer, "/auth/me"),
        (schemas.KeysAnswer, "/auth/keys"),
        (schemas.KeyAnswer, f"/auth/keys/{made['id']}"),
        (schemas.ModelsAnswer, "/v1/models"),
        (schemas.ModelAnswer, "/v1/models/echo"),
        (schemas.StatsAnswer, "/stats"),
        (schemas.HealthAnswer, "/health"),
        (schemas.LiveAnswer, "/health/live"),
    ):
        check(model, world.get(path, admin.token).json())
    check(schemas.ErrorAnswer, world.client.get("/nowhere").json())


def test_what_a_key_may_be_asked_for_is_described(description: dict[str, Any]) -> None:
    schema = description["components"]["schemas"]
    for body in ("NewKeyBody", "ChangeKeyBody"):
        properties = schema[body]["properties"]
        for limit in ("rate_limit_rpm", "rate_limit_tpm", "max_parallel_requests"):
            assert (properties[limit]["minimum"], properties[limit]["maximum"]) == (0, 10**9)
            assert {"type": "null"} in properties[limit]["anyOf"]
        assert (properties["max_budget"]["exclusiveMinimum"], properties["max_budget"]["maximum"]) == (0, 10**6)
        assert {"enum": ["total", "day", "week", "month"], "type": "string"} in properties["budget_period"]["anyOf"]
    assert ("blocked" in schema["ChangeKeyBody"]["properties"], "blocked" in schema["NewKeyBody"]["properties"]) == (
        True,
        False,
    )
    answer = schema["KeyAnswer"]
    assert answer["properties"]["budget_period"]["enum"] == ["total", "day", "week", "month"]
    assert set(answer["required"]) == set(answer["properties"])
