"""An HTTP server on the loopback that serves a folder and fails in the ways that real ones do."""

import http.server
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Faults:
    """What goes wrong, and a log of what was asked; changed between requests by the tests.

    Attributes:
        cuts: byte counts; each answer is broken off after the next of them, until none is left.
        ranges: whether ranges are served; otherwise every answer is the whole file.
        tag: ETag of all files; None sends none.
        codes: HTTP error codes for the next answers.
        chunked: send no length, in chunks.
        slow: seconds to wait between blocks of 4 kB.
        requests: path and headers of each request that came.
    """

    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    tag: str | None = '"v1"'
    codes: list[int] = field(default_factory=list)
    chunked: bool = False
    slow: float = 0.0
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def asked(self, name: str) -> list[dict[str, str]]:
        """Headers of the requests for one file."""
        return [headers for path, headers in self.requests if path == f"/{name}"]


@contextmanager
def serving(folder: Path, faults: Faults | None = None) -> Iterator[str]:
    """Serve the files of ``folder``; gives the address."""
    faults = faults or Faults()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            faults.requests.append((self.path, dict(self.headers)))
            path = folder / self.path.lstrip("/")
            if faults.codes or not path.is_file():
                code = faults.codes.pop(0) if faults.codes else 404
                self.send_error(code)
                return
            content = path.read_bytes()
            start = self._start(len(content))
            if start > len(content) or (start == len(content) and start):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", span)
            if faults.tag:
                self.send_header("ETag", faults.tag)
            if faults.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self._send(content[start:])

        def _start(self, size: int) -> int:
            match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            current = self.headers.get("If-Range", faults.tag) == faults.tag
            return int(match[1]) if match and faults.ranges and current else 0

        def _send(self, content: bytes) -> None:
            cut = faults.cuts.pop(0) if faults.cuts else None
            whole = content if cut is None else content[:cut]
            step = 4096 if faults.slow else 1 << 16
            try:
                for offset in range(0, len(whole), step):
                    block = whole[offset : offset + step]
                    if faults.chunked:
                        block = f"{len(block):x}\r\n".encode() + block + b"\r\n"
                    self.wfile.write(block)
                    time.sleep(faults.slow)
                if faults.chunked and cut is None:
                    self.wfile.write(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client was killed
            if cut is not None:
                self.close_connection = True

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
