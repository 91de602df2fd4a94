"""What every answer tells a browser: to guess no type, keep nothing, show it in no frame, tell nobody where it came from, and
run nothing but what the page itself is made of."""

import base64
import hashlib
import re

from flask import Flask, Response

# Of an answer that is no page: nothing may be loaded or run in its name.
NOTHING = "default-src 'none'; frame-ancestors 'none'"
# Of what the web server answers before any service is asked, too.
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": NOTHING,
}

_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def add_security_headers(app: Flask) -> None:
    """Give every answer what `ALWAYS` says, unless its view says otherwise."""

    @app.after_request
    def protect(response: Response) -> Response:
        headers = response.headers
        if headers.get("Content-Type", "").startswith("text/html") and not response.direct_passthrough:
            headers.setdefault("Content-Security-Policy", page_policy(response.get_data(as_text=True)))
        for name, value in ALWAYS.items():
            headers.setdefault(name, value)
        return response


def page_policy(page: str) -> str:
    """What a page of ours may do: its own files, and of what stands in it the very scripts that it has now. Swagger UI sets
    styles as it draws, and draws icons that stand in its style sheet."""
    digests = (hashlib.sha256(script.encode()).digest() for script in _INLINE_SCRIPT.findall(page))
    inline = "".join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src 'self'{inline}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "font-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
