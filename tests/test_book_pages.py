"""The HTML book, built from the notebooks as committed and opened in a real browser.

Links and files are checked without a browser; what needs one is skipped where Chromium is absent.
"""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import build_book

BOOK, NOTEBOOKS = build_book.BOOK, build_book.NOTEBOOKS
PAGES = [f"{path.stem}.html" for path in sorted(BOOK.glob("*.md"))] + [
    f"notebooks/{path.stem}.html" for path in sorted(NOTEBOOKS.glob("*.ipynb"))
]


class Page(HTMLParser):
    """Ids, links and pictures of an HTML file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []  # scripts, styles and pictures
        self.alts: dict[str, str] = {}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.ids |= {values[key] for key in ("id", "name") if key in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in {"script", "img", "source"} and "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and "href" in values:
            self.loaded.append(values["href"])
        if tag == "img":
            self.alts[values["src"]] = values.get("alt", "")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("book")
    build_book.gather(folder / "source")
    assert build_book.build(folder / "source", folder / "html") == 0
    return folder / "html"


@pytest.fixture(scope="module")
def origin(html: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(html))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _open(browser: webdriver.Chrome, address: str, *, width: int = 1300) -> None:
    """Open a page afresh and wait until its formulas stand."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    browser.get("about:blank")
    for kind in ("performance", "browser"):
        browser.get_log(kind)  # of the page before
    browser.get(address)
    browser.set_script_timeout(60)
    browser.execute_async_script(
        "const done = arguments[0];"
        "if (window.MathJax) MathJax.startup.promise.then(() => done()); else done();"
    )


def _requests(browser: webdriver.Chrome, origin: str) -> tuple[list[str], list[str]]:
    """Addresses that the open page asked for, and those that failed."""
    addresses: dict[str, str] = {}
    failed = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        event, params = message["method"], message["params"]
        if event == "Network.requestWillBeSent" and params["documentURL"].startswith(origin):
            addresses[params["requestId"]] = params["request"]["url"]
        elif event == "Network.loadingFailed" and params["requestId"] in addresses:
            failed.append(addresses[params["requestId"]])
        elif event == "Network.responseReceived" and params["response"]["status"] >= 400:
            failed.append(params["response"]["url"])
    return list(addresses.values()), failed


# without a browser


@pytest.mark.parametrize("name", PAGES)
def test_links_and_files_of_a_page_exist(html: Path, name: str) -> None:
    path = html / name
    page = Page(path)
    broken = []
    for link in page.links + page.loaded:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not target.is_file():
            broken.append(link)
            continue
        in_page = parts.fragment and target.suffix == ".html" and link in page.links
        if in_page and unquote(parts.fragment) not in Page(target).ids:
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_nothing_from_elsewhere(html: Path, name: str) -> None:
    assert [address for address in Page(html / name).loaded if urlsplit(address).netloc] == []


@pytest.mark.parametrize("name", PAGES)
def test_pictures_have_alt_texts(html: Path, name: str) -> None:
    # Without an alt text the address of the picture stands in its place.
    alts = Page(html / name).alts
    assert [source for source, alt in alts.items() if not alt or Path(alt).suffix] == []


def test_status_page_lists_every_notebook(html: Path) -> None:
    links = Page(html / "status.html").links
    for path in NOTEBOOKS.glob("*.ipynb"):
        assert f"notebooks/{path.stem}.html" in links


# in a browser


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_without_failed_or_external_requests(
    browser: webdriver.Chrome, origin: str, name: str
) -> None:
    _open(browser, f"{origin}/{name}")
    addresses, failed = _requests(browser, origin)
    assert f"{origin}/{name}" in addresses
    assert [a for a in addresses if not a.startswith((f"{origin}/", "data:", "blob:"))] == []
    assert failed == []
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []


@pytest.mark.parametrize("name", PAGES)
def test_formulas_and_pictures_show(browser: webdriver.Chrome, origin: str, name: str) -> None:
    _open(browser, f"{origin}/{name}")
    formulas = browser.find_elements(By.CSS_SELECTOR, "span.math, div.math")
    drawn = browser.find_elements(By.CSS_SELECTOR, ".math mjx-container svg")
    assert len(drawn) >= len(formulas)
    if name == "notation.html":
        assert len(formulas) > 50
    assert browser.find_elements(By.CSS_SELECTOR, "mjx-merror, [data-mjx-error]") == []
    empty = browser.execute_script(
        "return [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
    )
    assert empty == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone(browser: webdriver.Chrome, origin: str, name: str) -> None:
    _open(browser, f"{origin}/{name}", width=390)
    article = browser.find_element(By.CSS_SELECTOR, "article.bd-article")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert article.rect["x"] >= 0
    assert article.rect["x"] + article.rect["width"] <= 390


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("notebooks/")])
def test_code_of_a_notebook_fits_its_column(
    browser: webdriver.Chrome, origin: str, name: str
) -> None:
    _open(browser, f"{origin}/{name}", width=1400)
    cells = browser.find_elements(By.CSS_SELECTOR, ".cell_input pre")
    wide = [cell.text for cell in cells if cell.get_property("scrollWidth") > cell.rect["width"]]
    # The parameters of chapter 09 are left out: papermill reads a type and its values in one line.
    assert [code for code in wide if "# type: Literal" not in code] == []


def test_search_finds_the_glossary(browser: webdriver.Chrome, origin: str) -> None:
    _open(browser, f"{origin}/search.html?q=prototype")
    WebDriverWait(browser, 20).until(
        lambda b: "Glossary" in b.find_element(By.ID, "search-results").text
    )
    assert _requests(browser, origin)[1] == []


def test_dark_mode_changes_the_page(browser: webdriver.Chrome, origin: str) -> None:
    _open(browser, f"{origin}/index.html")
    colour = "return getComputedStyle(document.querySelector('h1')).color"
    shown = {}
    for theme in ("light", "dark"):
        browser.find_element(By.CSS_SELECTOR, "button.theme-switch-button").click()
        choice = browser.find_element(By.CSS_SELECTOR, f".theme-change-button[data-mode={theme}]")
        WebDriverWait(browser, 10).until(lambda _, choice=choice: choice.is_displayed())
        choice.click()
        assert browser.execute_script("return document.documentElement.dataset.theme") == theme
        shown[theme] = browser.execute_script(colour)
    assert shown["light"] != shown["dark"]
