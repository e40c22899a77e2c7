"""What the tests ask of Grafana in a real browser, in one place."""

from __future__ import annotations

import base64
import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from playwright.sync_api import Browser, Locator, Page, Playwright, Position, Request, Response, TimeoutError

# A panel whose component crashed shows this instead; Grafana does not count it as an error of the panel.
CRASHED = "An unexpected error happened"
HEADER = "data-testid Panel header "
LOOKUP = re.compile(r"/api/datasources/uid/[^/]+/resources/")
# The longest that every dashboard offers: none at all cannot be asked for in an address.
NEVER = "15m"
# Milliseconds: two cores that do other work as well.
PATIENCE = 60_000

_PANELS = """() => [...document.querySelectorAll('section[data-testid^="data-testid Panel header"]')].map(section => {
  const box = section.getBoundingClientRect();
  return {
    title: section.getAttribute('data-testid').replace('data-testid Panel header ', ''),
    error: !!section.querySelector('[data-testid$="Panel status error"]'),
    text: section.innerText, x: box.x, y: box.y, width: box.width, height: box.height};
})"""
_DRAWN = (
    """wanted => [...document.querySelectorAll('section[data-testid^="data-testid Panel header"]')].length >= wanted"""
)
# Where the last panel ends, beyond what is in sight; inside a panel of lines there is a longer page.
_HEIGHT = """() => Math.max(...[...document.querySelectorAll('.react-grid-layout')].map(
  grid => grid.getBoundingClientRect().y + grid.getBoundingClientRect().height))"""


@dataclass
class Panel:
    """One panel as it is drawn."""

    title: str
    error: bool
    text: str
    x: float
    y: float
    width: float
    height: float

    @property
    def crashed(self) -> bool:
        return CRASHED in self.text

    def overlaps(self, other: Panel) -> bool:
        """Whether both cover more than a rim of the same place."""
        across = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        down = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return across > 2 and down > 2


@dataclass
class View:
    """A page with what it asked for and what went wrong on the way."""

    page: Page
    # What was asked of the stores: the number of the panel, 0 where none asked, and the question.
    queries: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    # What was looked up in a store besides: the values of variables.
    lookups: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _open: set[Request] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)
        self.page.on("requestfinished", lambda request: self._open.discard(request))
        self.page.on("requestfailed", lambda request: self._open.discard(request))
        self.page.on("pageerror", lambda error: self.failures.append(f"script: {error}"))

    def _asked(self, request: Request) -> None:
        if "/api/" in request.url:
            self._open.add(request)
        if "/api/ds/query" in request.url and request.post_data:
            self.queries.append((int(request.headers.get("x-panel-id", 0)), json.loads(request.post_data)))
        elif LOOKUP.search(request.url):
            self.lookups.append(request.url)

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and "/api/" in response.url:
            self.failures.append(f"{response.status} {urlsplit(response.url).path}")

    def settle(self, quiet: float = 1.0) -> None:
        """Waits until Grafana has asked nothing for so many seconds, and drawn what it got."""
        begin = since = time.monotonic()
        while time.monotonic() - since < quiet:
            self.page.wait_for_timeout(100)
            if self._open:
                since = time.monotonic()
            assert since - begin < PATIENCE / 1000, f"no answer to {[r.url for r in self._open]}"
        self.page.wait_for_timeout(300)

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()

    def follow(self, link: Locator, at: Position | None = None) -> View:
        """What a click opens, in this window or in one of its own; `at` is where on the link, by default its middle."""
        before, opened = self.page.url, list[Page]()
        self.page.context.once("page", lambda page: opened.append(page))
        link.click(position=at)
        for _ in range(PATIENCE // 100):
            if opened or self.page.url != before:
                break
            self.page.wait_for_timeout(100)
        else:
            raise AssertionError(f"the click on {link} opened nothing")
        page = opened[0] if opened else self.page
        view = View(page)
        page.wait_for_load_state("load")
        view.settle(2)
        return view

    @property
    def text(self) -> str:
        """What can be read on the page."""
        return self.page.inner_text("body")

    def panels(self) -> list[Panel]:
        return [Panel(**found) for found in self.page.evaluate(_PANELS)]

    def panel(self, title: str) -> Locator:
        """The panel of this title, scrolled to."""
        section = self.page.locator(f'section[data-testid="{HEADER}{title}"]').first
        section.scroll_into_view_if_needed(timeout=PATIENCE)
        return section

    def wait_for_questions(self, panels: list[dict[str, Any]]) -> None:
        """Waits until each of these panels that is in sight has asked what it shows, and got it."""
        for _ in range(PATIENCE // 100):
            in_sight = {panel.title for panel in self.panels()}
            wanted = {p["id"] for p in panels if p["title"] in in_sight and p.get("targets")}
            silent = wanted - {panel for panel, _ in self.queries}
            if wanted and not silent:
                break
            self.page.wait_for_timeout(100)
        else:
            raise AssertionError(f"of the panels in sight, {in_sight or 'none'}, these ids asked nothing: {silent}")
        self.settle()

    def unfold(self, width: int) -> None:
        """Makes the window as high as the dashboard: Grafana draws what is in sight."""
        high = max(int(self.page.evaluate(_HEIGHT)) + 40, 900)
        self.page.set_viewport_size({"width": width, "height": high})


class Grafana:
    """A Grafana that runs, and the browser that looks at it."""

    def __init__(
        self,
        playwright: Playwright,
        browser: Browser,
        url: str,
        password: str,
        shop: str,
        warehouse: str,
        pictures: Path | None,
    ) -> None:
        self.url, self.shop, self.warehouse = url.rstrip("/"), shop.rstrip("/"), warehouse.rstrip("/")
        self.pictures = pictures
        self._login = {"user": "admin", "password": password}
        # One for all windows: what Grafana is made of is loaded once.
        self._browser = browser.new_context()
        basic = base64.b64encode(f"admin:{password}".encode()).decode()
        self._api = playwright.request.new_context(extra_http_headers={"Authorization": f"Basic {basic}"})

    def get(self, path: str) -> Any:
        """The JSON of Grafana's own API."""
        answer = self._api.get(self.url + path)
        assert answer.ok, f"{path}: {answer.status} {answer.text()[:300]}"
        return answer.json()

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any, float]:
        """Status, JSON and seconds of a POST to Grafana's API."""
        begin = time.monotonic()
        answer = self._api.post(self.url + path, data=body)
        return answer.status, answer.json(), time.monotonic() - begin

    def look(self, path: str, *, width: int = 1440, height: int = 900) -> View:
        """A page of Grafana in a window of its own."""
        # Log in for each window: Grafana rotates an older session, sometimes in the middle of a test.
        answer = self._browser.request.post(f"{self.url}/login", data=self._login)
        assert answer.ok, f"Grafana at {self.url} refuses the password: {answer.status}"
        page = self._browser.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.set_default_timeout(PATIENCE)
        view = View(page)
        page.goto(self.url + path, wait_until="load")
        view.settle()
        return view

    def board(
        self,
        uid: str,
        start: str = "now-15m",
        *,
        theme: str = "dark",
        width: int = 1440,
        whole: bool = True,
        **more: str,
    ) -> View:
        """A dashboard, drawn from top to bottom unless told otherwise; `more` are variables."""
        chosen = urlencode(
            {"from": start, "to": "now", "theme": theme, "refresh": NEVER, **{f"var-{k}": v for k, v in more.items()}}
        )
        view = self.look(f"/d/{uid}?{chosen}&kiosk", width=width)
        view.page.locator(".react-grid-layout section").first.wait_for()
        view.settle()
        if whole:
            shown = [p for p in self.get(f"/api/dashboards/uid/{uid}")["dashboard"]["panels"] if p["type"] != "row"]
            # A window that grows while a panel waits for its turn makes Grafana ask twice.
            view.wait_for_questions(shown)
            view.unfold(width)
            # The browser may be busier with drawing than Grafana with asking.
            with suppress(TimeoutError):
                view.page.wait_for_function(_DRAWN, arg=len(shown))
            view.settle()
        return view

    def picture(self, page: Page, name: str) -> None:
        """Save a screenshot if VANTAGE_PICTURES is set."""
        if self.pictures:
            self.pictures.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=self.pictures / f"{name}.png")
