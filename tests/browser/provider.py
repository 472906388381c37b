"""An OpenID provider on this machine that signs everybody in as whoever a test says.

Discovery, authorization code, ID tokens signed with RS256, keys: what Streamlit's sign-in asks for,
over HTTP, with the standard library and the signing of Authlib's own dependency.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT = "nla"


class Provider(ThreadingHTTPServer):
    """``person`` are the claims of the next ID token, beside those of the protocol."""

    def __init__(self, **person: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.person = person
        self.nonces: dict[str, str] = {}
        self.key = RSAKey.generate_key(2048, {"kid": "tests", "use": "sig", "alg": "RS256"})
        self.issuer = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    def __enter__(self) -> Provider:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def secrets(self) -> str:
        """What an app that signs in here has in its file of secrets."""
        return f"""[auth]
redirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"
cookie_secret = "a-secret-that-signs-the-cookies-of-this-test"
client_id = "{CLIENT}"
client_secret = "of no importance"
server_metadata_url = "{self.issuer}/.well-known/openid-configuration"
"""

    def code(self, nonce: str) -> str:
        code = f"code-{len(self.nonces)}"
        self.nonces[code] = nonce
        return code

    def id_token(self, code: str) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300}
        header = {"alg": "RS256", "kid": "tests"}
        return jwt.encode(
            header, {**claims, "nonce": self.nonces.pop(code), **self.person}, self.key
        )


class _Answers(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        if place.path == "/.well-known/openid-configuration":
            issuer = self.server.issuer
            ends = {"authorization": "authorize", "token": "token"}
            self._json(
                {
                    "issuer": issuer,
                    "jwks_uri": f"{issuer}/keys",
                    "response_types_supported": ["code"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                    **{f"{name}_endpoint": f"{issuer}/{end}" for name, end in ends.items()},
                }
            )
        elif place.path == "/keys":
            self._json({"keys": [self.server.key.as_dict(private=False)]})
        else:
            asked = {name: values[0] for name, values in parse_qs(place.query).items()}
            back = {"code": self.server.code(asked["nonce"]), "state": asked["state"]}
            self.send_response(302)
            self.send_header("Location", f"{asked['redirect_uri']}?{urlencode(back)}")
            self.end_headers()

    def do_POST(self) -> None:
        body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        token = self.server.id_token(body["code"][0])
        self._json({"access_token": "none", "token_type": "Bearer", "id_token": token})

    def _json(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...
