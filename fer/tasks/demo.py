"""The task of showing a network in the browser: its page, and a server on this machine alone."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import webbrowser
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from fer.core.composition import own_folders
from fer.core.errors import ConfigError
from fer.core.options import check_options
from fer.model.checkpoint import load_checkpoint
from fer.tasks.assembly import import_networks
from fer.tasks.export import export_site

HOST = "127.0.0.1"


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, without a line for each file."""

    # Where the system's own table is wrong or poor, browsers refuse modules and compile slowly.
    extensions_map = {  # noqa: RUF012  (as the base class has it)
        **SimpleHTTPRequestHandler.extensions_map,
        ".css": "text/css",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".mjs": "text/javascript; charset=utf-8",
        ".onnx": "application/octet-stream",
        ".wasm": "application/wasm",
    }

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def end_headers(self) -> None:
        """Let the browser ask each time whether a file is another network's by now."""
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()


@contextlib.contextmanager
def serving(folder: Path, port: int) -> Iterator[ThreadingHTTPServer]:
    """A server of a folder, not yet running, that is closed at the end.

    Raises:
        ConfigError: the port is in use, or not this user's to take.
    """
    try:
        handler = functools.partial(Handler, directory=str(folder))
        server = ThreadingHTTPServer((HOST, port), handler)
    except OSError as error:
        raise ConfigError(
            f"port: expected one that is free on {HOST}, found {port}: {error.strerror}. Give "
            f"another one: port={port + 1 if port < 65535 else 0}; or any: port=0"
        ) from error
    with server:
        yield server


def demo_task(cfg: DictConfig, _: Path) -> None:
    """Write the page, as ``conf/demo.yaml`` says, and serve it until Ctrl-C.

    Raises:
        FerError: something that the user can correct, in a message that says how.
    """
    check_options(cfg)
    import_networks(own_folders())
    checkpoint = load_checkpoint(cfg.checkpoint)
    with contextlib.ExitStack() as stack:
        if cfg.output is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = Path(cfg.output)
        server = stack.enter_context(serving(folder, cfg.port))
        close = export_site(checkpoint, folder, cfg.runtime, Path(cfg.paths.data))
        address = f"http://{HOST}:{server.server_port}/"
        with contextlib.suppress(KeyboardInterrupt):
            print(f"{address} shows it until Ctrl-C; {close}", flush=True)
            if cfg.open:
                webbrowser.open(address)
            server.serve_forever()
