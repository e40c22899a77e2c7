"""The API page has every public name, parameter, setting and metric."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

import pytest
from flask.testing import FlaskClient

import flask_vantage
from conftest import APP
from flask_vantage import Settings

PAGE = (APP / "docs" / "api.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def test_sections_are_the_public_names() -> None:
    assert sorted(SECTIONS) == sorted(flask_vantage.__all__)


@pytest.mark.parametrize("name", [n for n in flask_vantage.__all__ if n != "Settings"])
def test_signature_has_every_parameter(name: str) -> None:
    signature = re.search(rf"^    {name}\((.*)\)$", SECTIONS[name], re.MULTILINE)
    assert signature
    parameters = [p.split("=")[0].strip(" *") for p in signature[1].split(",")]
    assert [p for p in parameters if p] == list(inspect.signature(getattr(flask_vantage, name)).parameters)


def test_settings_table_has_every_field_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `[A-Z_`, ]+ \| `(.*?)` \|", SECTIONS["Settings"], re.MULTILINE)
    assert rows == [(field.name, repr(field.default)) for field in fields(Settings)]


def test_settings_table_has_every_variable_that_is_read() -> None:
    read: set[str] = set()

    class Environment(dict[str, str]):
        def get(self, key: str, default: object = None) -> str:  # type: ignore[override]
            read.add(key)
            return ""

    Settings.from_environment(Environment())
    assert {variable for variable in read if f"`{variable}`" not in SECTIONS["Settings"]} == set()


def test_metrics_table_has_every_metric(client: FlaskClient) -> None:
    client.get("/things/1")
    text = client.get("/metrics").get_data(as_text=True)
    names = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    created = {name for name in names if name.endswith("_created")}
    assert {name for name in names - created if f"| `{name}` |" not in SECTIONS["Vantage"]} == set()
