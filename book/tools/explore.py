"""Serve the explorer as an app, by Voilà: python book/tools/explore.py [--port PORT] [--no-browser]

The page asks no other server for anything: Voilà's own template would fetch an icon font, ours, in
explorer_app/, does without.
"""

import argparse
import os
import sys
from pathlib import Path

APP = Path(__file__).resolve().parent / "explorer_app"


def command(*, port: int | None = None, browser: bool = True) -> list[str]:
    """Voilà's command line; the other settings are in explorer_app/voila.json."""
    line = [sys.executable, "-m", "voila", str(APP / "explorer.py")]
    line += [f"--port={port}"] if port is not None else []
    return line if browser else [*line, "--no-browser"]


def environment() -> dict[str, str]:
    """Where Voilà finds its settings (JUPYTER_CONFIG_PATH) and the template (JUPYTER_PATH)."""
    names = ("JUPYTER_CONFIG_PATH", "JUPYTER_PATH")
    paths = {name: [str(APP), os.environ.get(name, "")] for name in names}
    return os.environ | {name: os.pathsep.join(filter(None, p)) for name, p in paths.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Serve the explorer as an app.")
    parser.add_argument("--port", type=int, help="default: the first free one from 8866 on")
    parser.add_argument("--no-browser", action="store_true", help="open no browser")
    options = parser.parse_args(arguments)
    line = command(port=options.port, browser=not options.no_browser)
    os.execve(line[0], line, environment())


if __name__ == "__main__":
    main()
