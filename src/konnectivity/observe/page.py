"""The page for people at `/`: files beside this module, served as they are.

It holds no data itself. Its script asks the admin API for them, with the reader's token, so the
files are open to everyone who reaches the port: a page that nobody may load can ask for no token.

Reference: docs/reference/page.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from konnectivity.observe.route import Request, Response, Route

FOLDER: Final = Path(__file__).parent / "web"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing from elsewhere, nowhere to, and no text that becomes markup.

Source: Content Security Policy Level 3; Trusted Types.
"""
HEADERS: Final = (
    ("Content-Security-Policy", POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-cache"),
)


def _files() -> Iterator[tuple[str, Response]]:
    for path in sorted(FOLDER.iterdir()):
        name = "/" if path.name == "index.html" else f"/{path.name}"
        yield name, Response(path.read_bytes(), content_type=TYPES[path.suffix], headers=HEADERS)


FILES: Final = dict(_files())
"""By path; read once, while nothing is served yet."""


def page() -> dict[str, Route]:
    """The routes of the page and of what belongs to it."""
    return dict.fromkeys(FILES, _serve)


def _serve(request: Request) -> Response:
    if request.method in ("GET", "HEAD"):
        return FILES[request.path]
    return Response(b"only GET\n", status=405, headers=(("Allow", "GET, HEAD"),))
