"""An index of Python packages on this machine: wheels made here, and failures on purpose."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Index:
    """What is on offer, and what was asked for."""

    url: str = ""
    wheels: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    cut: int = 0
    """So many answers to come are wheels that break off half-way."""

    def add(self, name: str, version: str, files: Mapping[str, bytes], needs: str = "") -> None:
        """Offer a package with some files."""
        stem = f"{name.replace('-', '_')}-{version}"
        about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        about += f"Requires-Dist: {needs}\n" if needs else ""
        inside = {
            **files,
            f"{stem}.dist-info/METADATA": about.encode(),
            f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        inside[f"{stem}.dist-info/RECORD"] = "".join(f"{path},,\n" for path in inside).encode()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path, content in inside.items():
                archive.writestr(path, content)
        self.wheels[f"{stem}-py3-none-any.whl"] = packed.getvalue()


@contextlib.contextmanager
def serving_packages() -> Iterator[Index]:
    """Serve an index until the block ends."""
    index = Index()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append(self.path)
            kind, _, name = self.path.strip("/").partition("/")
            if kind == "files" and name in index.wheels:
                content, broken = index.wheels[name], index.cut > 0
                index.cut -= broken
                return self._answer(content, content[: len(content) // 2] if broken else content)
            links = [
                f'<a href="/files/{wheel}#sha256={hashlib.sha256(content).hexdigest()}">{wheel}</a>'
                for wheel, content in index.wheels.items()
                if wheel.startswith(f"{name.strip('/').replace('-', '_')}-")
            ]
            if kind != "simple" or not links:
                return self.send_error(404)
            page = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()
            return self._answer(page, page)

        def _answer(self, content: bytes, sent: bytes) -> None:
            self.send_response(200)
            self.send_header(
                "Content-Type", "text/html" if content[:1] == b"<" else "application/zip"
            )
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    index.url = f"http://127.0.0.1:{server.server_port}/simple"
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()


def pip_environment(url: str) -> dict[str, str]:
    """Variables with which pip asks this index alone, and keeps nothing."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {
        **others,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": url,
        "PIP_NO_CACHE_DIR": "1",
        "PIP_RETRIES": "0",
        "NO_PROXY": "127.0.0.1",
    }
