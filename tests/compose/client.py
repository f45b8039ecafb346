"""An HTTP client of one reader or operator, with a token that it signs itself.

It never repeats a request: who sends a command decides that (readers.py).
"""

import base64
import hashlib
import hmac
import http.client
import json
import time
import uuid
from dataclasses import dataclass

READING = "/api/v1/reading-sessions"
ADMIN = "/api/v1/admin"
# Longer than nginx waits for the service.
TIMEOUT_SECONDS = 30
TOKEN_SECONDS = 7200


@dataclass
class Response:
    status: int
    headers: dict
    body: object
    seconds: float

    @property
    def text(self):
        return self.body if isinstance(self.body, str) else json.dumps(self.body)


def token(secret, subject, **claims):
    """A token as the app's issuer would sign it (HS256)."""

    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    head = encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    claims = {"sub": subject, "exp": int(time.time()) + TOKEN_SECONDS, **claims}
    signed = head + b"." + encode(json.dumps(claims).encode())
    signature = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + encode(signature)).decode()


class Client:
    """One connection at a time. `address` is what a TLS terminator would append to
    `X-Forwarded-For`."""

    def __init__(self, port, bearer=None, address=None):
        self.port = port
        self.headers = {"Content-Type": "application/json"}
        if bearer:
            self.headers["Authorization"] = f"Bearer {bearer}"
        if address:
            self.headers["X-Forwarded-For"] = address
        self.connection = None

    def call(self, method, path, body=None, key=None):
        """Raises OSError or HTTPException if there was no response."""
        headers = dict(self.headers)
        if key:
            headers["Idempotency-Key"] = key
        data = None if body is None else json.dumps(body)
        started = time.monotonic()
        if self.connection is None:
            self.connection = http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        try:
            self.connection.request(method, path, data, headers)
            response = self.connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if response.will_close:
            self.close()
        kind = response.headers.get("Content-Type", "")
        text = content.decode()
        parsed = json.loads(text) if "json" in kind and text else text
        lower = {name.lower(): value for name, value in response.headers.items()}
        return Response(response.status, lower, parsed, time.monotonic() - started)

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def new_id():
    return str(uuid.uuid4())
