"""Downloads come over https alone, and every file of ours has a size and a checksum."""

import ast
import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pmms
from pmms.addresses import check_address
from pmms.arriving import DownloadError
from pmms.datasets.sources import COCO, PASCAL, Source
from pmms.download import download

PACKAGE = Path(pmms.__file__).parent
SOURCES = (*PASCAL, *COCO.values())


@pytest.mark.parametrize("source", SOURCES, ids=[source.name for source in SOURCES])
def test_a_source_is_https_with_size_and_checksum(source: Source) -> None:
    assert source.urls
    assert all(url.startswith("https://") for url in source.urls)
    assert source.sha256 is not None
    assert re.fullmatch(r"[0-9a-f]{64}", source.sha256)
    assert source.size is not None
    assert source.size > 0
    assert source.origin


@pytest.mark.parametrize(
    "url",
    [
        "http://host.robots.ox.ac.uk/a.tar",
        "http://127.0.0.1.example.org/a.tar",
        "http://localhost@example.org/a.tar",
        "ftp://example.org/a.tar",
        "file:///etc/passwd",
        "https:///a.tar",
        "example.org/a.tar",
        "",
    ],
)
def test_other_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="starts with https://"):
        check_address(url)
    with pytest.raises(ValueError, match="starts with https://"):
        download([url], tmp_path / "folder" / "a.tar")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["https://example.org/a.tar", "http://127.0.0.1:8000/a", "http://localhost/a"]
)
def test_https_and_this_machine_are_taken(url: str) -> None:
    check_address(url)


@contextmanager
def _sending_on(target: str) -> Iterator[str]:
    """A server of this machine that answers every request with another address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/a.tar"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("target", ["http://example.org/a.tar", "ftp://example.org/a.tar"])
def test_a_server_cannot_send_on_to_what_is_refused(target: str, tmp_path: Path) -> None:
    with (
        _sending_on(target) as url,
        pytest.raises(DownloadError, match=r"starts with https://|not allowed"),
    ):
        download([url], tmp_path / "a.tar", attempts=1, wait=0)
    assert not (tmp_path / "a.tar").exists()


def test_nothing_else_in_the_package_opens_addresses() -> None:
    """Weights are fetched by torchvision, which checks their hash; all else by one module."""
    opening = {
        "urllib.request",
        "urllib3",
        "requests",
        "httpx",
        "aiohttp",
        "ftplib",
        "socketserver",
    }
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if opening & set(names):
                found[path.name] = sorted(opening & set(names))
    assert found.keys() == {"addresses.py", "download.py"}


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_imagenet_weights_are_https_with_a_hash(name: str) -> None:
    """torchvision compares the first digits of the SHA-256 that stand in the file's name."""
    from torchvision.models import get_model_weights

    url = get_model_weights(name)["IMAGENET1K_V1"].url
    assert re.fullmatch(r"https://download\.pytorch\.org/models/\w+-[0-9a-f]{8}\.pth", url)
