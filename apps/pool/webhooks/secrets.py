"""Secrets of webhooks: made, encrypted at rest, and signed with.

They must be usable, so they cannot be hashed. Each is encrypted (AES-256-GCM) under a key of the settings, and bound to its
endpoint's id: whoever can only write the database can neither read one nor put one endpoint's in another's place.
"""

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence

from Crypto.Cipher import AES
from Crypto.Cipher._mode_gcm import GcmMode

from apps.common.errors import NotConfigured

PREFIX = "whsec_"
_NONCE_BYTES, _TAG_BYTES = 12, 16
_MISSING = "WEBHOOK_SECRET_KEY is not set, or not to the key that this webhook's secret was encrypted with."


def new_secret() -> str:
    """256 bits from the system, as text."""
    return PREFIX + secrets.token_urlsafe(32)


def signature(secrets_in_force: Sequence[str], timestamp: int, body: bytes) -> str:
    """The value of the signature header: ``t=`` seconds since 1970, and a ``v1=`` of each secret over ``t.body``."""
    signed = f"{timestamp}.".encode() + body
    digests = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets_in_force]
    return ",".join([f"t={timestamp}", *(f"v1={digest}" for digest in digests)])


def fingerprint(secret: str, message_id: str) -> str:
    """What a secret is recognised by when its POST is repeated; tells no more of it than a signature does."""
    return hmac.new(secret.encode(), message_id.encode(), hashlib.sha256).hexdigest()


class Vault:
    """Seals with the first key, and opens what any of the keys sealed, so that a key can be rotated out."""

    def __init__(self, keys: Sequence[str]) -> None:
        digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._first = _name_of(digests[0]) if digests else ""
        self._keys = {_name_of(digest): digest for digest in digests}

    def seal(self, secret: str, owner: str) -> str:
        """Encrypt an endpoint's secret; raises `NotConfigured` where there is no key."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed, tag = self._cipher(self._first, nonce, owner).encrypt_and_digest(secret.encode())
        return f"{self._first}.{b64encode(nonce + tag + sealed).decode()}"

    def open(self, sealed: str, owner: str) -> str:
        """Decrypt it; raises `NotConfigured` where its key is not there, and `ValueError` where it was tampered with."""
        name, _, text = sealed.partition(".")
        data = b64decode(text)
        nonce, tag, secret = data[:_NONCE_BYTES], data[_NONCE_BYTES:][:_TAG_BYTES], data[_NONCE_BYTES + _TAG_BYTES :]
        opened: bytes = self._cipher(name, nonce, owner).decrypt_and_verify(secret, tag)
        return opened.decode()

    def _cipher(self, name: str, nonce: bytes, owner: str) -> GcmMode:
        if name not in self._keys:
            raise NotConfigured(_MISSING)
        cipher = AES.new(self._keys[name], AES.MODE_GCM, nonce=nonce)
        cipher.update(owner.encode())
        return cipher


def _name_of(key: bytes) -> str:
    """Which key sealed something, without telling anything of the key."""
    return hashlib.sha256(b"name:" + key).hexdigest()[:8]
