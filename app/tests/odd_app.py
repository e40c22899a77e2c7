"""An app with a catch-all route and a path in another language, for test_odd_requests.py."""

from __future__ import annotations

from flask import Blueprint, Flask, request

from flask_vantage import Vantage

app = Flask("odd")
Vantage(app)
shops = Blueprint("shops", __name__, url_prefix="/<language>/läden")


@shops.get("/<name>")
def shop(language: str, name: str) -> str:
    return name


@app.post("/echo")
def echo() -> dict[str, int]:
    return {"length": len(request.get_data())}


@app.get("/<path:rest>")
def page(rest: str) -> str:
    return f"index.html for {rest}"


app.register_blueprint(shops)
