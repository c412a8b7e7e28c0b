"""Which addresses are downloaded from: https, and what this machine itself serves."""

import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPMessage
from typing import IO

_HERE = ("localhost", "127.0.0.1", "::1")


def check_address(url: str) -> None:
    """Refuse what is not https. Plain http is taken from this machine alone, as tests serve it.

    Raises:
        ValueError: another address; names it.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or parts.hostname not in _HERE:
        raise ValueError(
            f"expected an address that starts with https:// (http:// of this machine alone), "
            f"got {url}"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server elsewhere, but not to an address that would have been refused itself."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            check_address(newurl)
        except ValueError as error:
            raise urllib.error.HTTPError(req.full_url, code, str(error), headers, fp) from error
        return super().redirect_request(req, fp, code, msg, headers, newurl)


opener = urllib.request.build_opener(_Redirects)
"""Opens addresses as ``urllib.request.urlopen`` does, redirections checked."""
