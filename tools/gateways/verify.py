"""Verifies passes without asking anybody: who may be here, by the public keys that Anteroom publishes.

    from verify import Passes                                  # pip install "pyjwt[crypto]"
    passes = Passes("http://127.0.0.1:8080/.well-known/jwks.json", "concert")
    visitor = passes.visitor_of(text)                          # jwt.InvalidTokenError: not here

    python3 verify.py JWKS-URL QUEUE [ISSUER]   # a pass a line on stdin: `ok VISITOR` or `no` a line

A pass that was released early is good here until it ends; `GET /api/authorize` refuses it at once.
"""

import base64
import json
import re
import sys
import time
import urllib.request

import jwt

SKEW_SECONDS = 30
# A longer text is no pass of Anteroom's.
PASS_CHARACTERS_MAX = 2048
# Keys are asked for no more often than this, whatever the passes that come say.
FETCH_EVERY_SECONDS = 5
# Keys of this age are asked for again, so that one that was removed opens nothing for longer.
KEYS_AGE_SECONDS_MAX = 60
FETCH_WAIT_SECONDS_MAX = 3

PASS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
TEXTS = ["iss", "aud", "sub", "jti"]
INSTANTS = ["iat", "nbf", "exp"]


class Passes:
    def __init__(self, jwks_url, queue, issuer="anteroom"):
        self.url, self.queue, self.issuer = jwks_url, queue, issuer
        self.keys, self.fetched_at, self.tried_at = {}, float("-inf"), float("-inf")

    def visitor_of(self, text):
        """Whose pass this is; jwt.InvalidTokenError if it opens nothing here."""
        if len(text) > PASS_CHARACTERS_MAX or not PASS.fullmatch(text):
            raise jwt.InvalidTokenError("not a pass")
        if not all(is_canonical(part) for part in text.split(".")):
            raise jwt.InvalidTokenError("not base64url")
        try:
            claims = self.verified(text)
        except (RecursionError, OverflowError) as error:
            raise jwt.InvalidTokenError("JSON beyond all bounds") from error
        texts = all(type(claims[name]) is str for name in TEXTS)
        if not texts or not all(type(claims[name]) is int for name in INSTANTS):
            raise jwt.InvalidTokenError("a claim is of another type")
        return claims["sub"]

    def verified(self, text):
        # What the pass says about itself chooses among our keys, and nothing else.
        header = jwt.get_unverified_header(text)
        if header.get("alg") != "EdDSA" or header.get("typ") != "pass+jwt" or "crit" in header:
            raise jwt.InvalidTokenError("another kind of token")
        return jwt.decode(
            text,
            self.key(header.get("kid")),
            algorithms=["EdDSA"],
            audience=self.queue,
            issuer=self.issuer,
            leeway=SKEW_SECONDS,
            # When it was issued is not judged: `nbf` says from when it is good.
            options={"require": TEXTS + INSTANTS, "strict_aud": True, "verify_iat": False},
        )

    def key(self, kid):
        age = time.monotonic() - self.fetched_at
        if kid not in self.keys or age > KEYS_AGE_SECONDS_MAX:
            self.fetch()
        if kid not in self.keys:
            raise jwt.InvalidTokenError("signed with an unknown key")
        return self.keys[kid]

    def fetch(self):
        """Asks for the keys, if that was not just done. If it fails, the old ones stay."""
        if time.monotonic() - self.tried_at < FETCH_EVERY_SECONDS:
            return
        self.tried_at = time.monotonic()
        try:
            with urllib.request.urlopen(self.url, timeout=FETCH_WAIT_SECONDS_MAX) as response:
                found = json.load(response)["keys"]
            ours = [jwk for jwk in found if (jwk.get("kty"), jwk.get("crv")) == ("OKP", "Ed25519")]
            keys = {jwk["kid"]: jwt.PyJWK(jwk, algorithm="EdDSA") for jwk in ours}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, jwt.PyJWTError) as error:
            print(f"{self.url}: {error}", file=sys.stderr)
            return
        # A node that has only just started has none; the old keys are better.
        if keys:
            self.keys, self.fetched_at = keys, time.monotonic()


def is_canonical(part):
    """Whether base64url is written in the one way that there is."""
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return False
    return base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() == part


def main():
    if not 3 <= len(sys.argv) <= 4:
        print("usage: python3 verify.py JWKS-URL QUEUE [ISSUER] <passes", file=sys.stderr)
        sys.exit(2)
    passes = Passes(*sys.argv[1:])
    sys.stdin.reconfigure(errors="replace")
    for line in sys.stdin:
        try:
            print("ok", passes.visitor_of(line.rstrip("\r\n")), flush=True)
        except jwt.PyJWTError:
            print("no", flush=True)


if __name__ == "__main__":
    main()
