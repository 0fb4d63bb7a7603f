"""/openapi.json: valid, complete, the same as the table; and the real process keeps to it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from edge.web import openapi
from edge.web.app import PREFIXES, application
from edge.web.parameters import Facts
from edge.web.routes import ROUTES
from edge.web.site import KNOWN_FEATURES, Route

ROOT = Path(__file__).resolve().parent.parent
FACTS = Facts(KNOWN_FEATURES, 128)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document(ROUTES, FACTS)


def operation(document: dict[str, Any], route: Route, method: str) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"][openapi.openapi_path(route.path)][method.lower()]
    return found


def body_schemas(document: dict[str, Any], route: Route) -> dict[str, dict[str, Any]]:
    content = operation(document, route, route.methods[0])["requestBody"]["content"]
    schemas = document["components"]["schemas"]
    return {kind: schemas[one["schema"]["$ref"].rpartition("/")[2]] for kind, one in content.items()}


WITH_BODY = [route for route in ROUTES if route.methods != ("GET",)]


def by_path(route: Route) -> str:
    return route.path


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    validate(document)


def test_what_is_routed_is_what_is_described(document: dict[str, Any]) -> None:
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    app = application(None)  # type: ignore[arg-type]  # the site is looked at when a request comes
    routed = {(openapi.openapi_path(one.rule), one.method) for one in app.routes}
    assert routed == {(prefix + path, method) for path, method in described for prefix in PREFIXES}
    assert len({route.path for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize("route", WITH_BODY, ids=by_path)
def test_every_parameter_is_described_in_json_and_in_forms(document: dict[str, Any], route: Route) -> None:
    names = {parameter.name for parameter in route.form.parameters}
    kinds = body_schemas(document, route)
    assert {"application/json", "multipart/form-data"} <= set(kinds)
    assert ("application/x-www-form-urlencoded" in kinds) == (not route.form.takes_pictures)
    for kind, schema in kinds.items():
        assert set(schema["properties"]) == names | {"token"}
        assert all(one["description"] for one in schema["properties"].values())
        for name in (parameter.name for parameter in route.form.parameters if not parameter.files):
            typed = str(schema["properties"][name])
            assert re.search(r"'type'|'enum'|'const'", typed), (kind, name)
        required = {parameter.name for parameter in route.form.parameters if parameter.required}
        assert required <= set(schema.get("required", ()))


@pytest.mark.parametrize("route", ROUTES, ids=by_path)
def test_every_answer_and_refusal_is_described(document: dict[str, Any], route: Route) -> None:
    for method in route.methods:
        responses = operation(document, route, method)["responses"]
        assert {str(status) for status in route.answers} <= set(responses)
        assert {"400", "413", "429", "500", "503"} <= set(responses)
        assert ({"401", "403"} <= set(responses)) == bool(route.scopes)
        assert all("schema" in next(iter(one["content"].values())) for one in responses.values())


def test_scopes_and_security(document: dict[str, Any]) -> None:
    for route in ROUTES:
        for method in route.methods:
            told = operation(document, route, method)
            assert set(told.get("x-scopes", ())) == {scope.value for scope in route.scopes}
            assert bool(told["security"]) == bool(route.scopes)


def test_every_reference_leads_somewhere_and_every_component_is_used(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'\$ref': '#/components/schemas/(\w+)'", str(document)))
    assert references == set(document["components"]["schemas"])


def test_a_form_cannot_give_what_it_does_not_declare() -> None:
    from edge.web.body import Body
    from edge.web.forms import LIST_ID
    from edge.web.lists import CREATE, NAME

    values = CREATE.read(Body(texts={"name": ("a",), "list_id": ("b",)}), FACTS)
    assert values[NAME] == "a"
    with pytest.raises(KeyError):
        values[LIST_ID]


def test_the_real_process_keeps_to_it(tmp_path: Path) -> None:
    """A few requests for each route; scripts/fuzz_api.py makes thousands."""
    spec = importlib.util.spec_from_file_location("fuzz_api", ROOT / "scripts" / "fuzz_api.py")
    assert spec is not None and spec.loader is not None
    fuzz_api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz_api)
    assert fuzz_api.run(tmp_path, cases=6, seed=1, phases="fuzzing") == 0
