"""No input gives a 5xx, and every error is problem+json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shop import warehouse

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
order_like = st.fixed_dictionaries({}, optional={"product_id": json_values, "quantity": json_values, "x": json_values})
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    order_like.map(lambda value: json.dumps(value).encode()),
)
segments = st.one_of(
    st.sampled_from(["products", "orders", "restock", "faults", "metrics", "", "."]),
    st.integers().map(str),
    st.text(max_size=12),
)
paths = st.lists(segments, max_size=4).map(
    lambda parts: "/" + "/".join(quote(part, safe="", errors="replace") for part in parts)
)
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
header_text = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)
headers = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        (
            "Content-Type",
            "Accept",
            "X-Request-ID",
            "Idempotency-Key",
            "traceparent",
            "tracestate",
            "baggage",
        ),
        header_text,
    ),
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    path: Path = tmp_path_factory.mktemp("fuzz") / "warehouse.db"
    app: Flask = warehouse.create_app(str(path))
    yield app.test_client()
    app.extensions["store"].connection.close()


@settings(
    max_examples=400,
    deadline=None,
    # The same examples in each run: a build must not fail by chance.
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    method=methods,
    path=paths,
    query=st.text(max_size=30),
    body=bodies,
    as_json=st.booleans(),
    given_headers=headers,
)
def test_no_input_gives_a_5xx(
    client: FlaskClient,
    method: str,
    path: str,
    query: str,
    body: bytes,
    as_json: bool,
    given_headers: dict[str, str],
) -> None:
    if as_json:
        given_headers = {**given_headers, "Content-Type": "application/json"}
    response: Any = client.open(
        # Not as the URL: the test client, unlike a server, reads "//x" as the name of a host.
        "/",
        environ_overrides={"PATH_INFO": unquote_to_bytes(path).decode("latin-1")},
        method=method,
        query_string=quote(query, safe="=&", errors="replace"),
        data=body,
        headers=given_headers,
    )
    assert response.status_code < 500, response.get_data()
    if response.status_code >= 400 and method != "HEAD" and response.mimetype != "text/html":
        assert response.content_type == "application/problem+json"
        assert json.loads(response.get_data())["status"] == response.status_code
