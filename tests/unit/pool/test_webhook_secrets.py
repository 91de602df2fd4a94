"""Secrets of webhooks: what they sign, and that nobody reads them out of a database."""

import hashlib
import hmac

import pytest

from apps.common.errors import NotConfigured
from apps.pool.webhooks.secrets import Vault, fingerprint, new_secret, signature

KEY, OLD_KEY = "k" * 32, "o" * 32


def test_signature__two_secrets__each_as_a_few_lines_of_anybody_compute_it() -> None:
    body = b'{"sequence":7}'
    value = signature(["first", "second"], 1_700_000_000, body)
    parts = [part.split("=") for part in value.split(",")]
    expected = [hmac.new(secret, b"1700000000." + body, hashlib.sha256).hexdigest() for secret in (b"first", b"second")]
    assert parts == [["t", "1700000000"], ["v1", expected[0]], ["v1", expected[1]]]


def test_sealed__opened_by_its_owner__the_same_and_never_twice_alike() -> None:
    vault, secret = Vault([KEY]), new_secret()
    one, other = vault.seal(secret, "w1"), vault.seal(secret, "w1")
    assert one != other
    assert secret not in one
    assert vault.open(one, "w1") == vault.open(other, "w1") == secret


def test_sealed__moved_to_another_webhook_or_altered__refused() -> None:
    vault = Vault([KEY])
    sealed = vault.seal("secret of one", "w1")
    with pytest.raises(ValueError, match="MAC"):
        vault.open(sealed, "w2")
    with pytest.raises(ValueError, match="MAC"):
        vault.open(sealed[:-4] + ("AAA=" if sealed[-4:] != "AAA=" else "BBB="), "w1")


def test_key__rotated_out__opens_what_it_sealed_while_it_is_given() -> None:
    sealed = Vault([OLD_KEY]).seal("secret", "w1")
    both = Vault([KEY, OLD_KEY])
    assert both.open(sealed, "w1") == "secret"
    assert Vault([KEY]).open(both.seal("secret", "w1"), "w1") == "secret", "the first key seals"
    with pytest.raises(NotConfigured, match="WEBHOOK_SECRET_KEY"):
        Vault([KEY]).open(sealed, "w1")


def test_seal__without_a_key__not_configured() -> None:
    with pytest.raises(NotConfigured, match="WEBHOOK_SECRET_KEY"):
        Vault([]).seal("secret", "w1")


def test_fingerprint__of_the_same_secret__the_same_under_one_message_id_only() -> None:
    assert fingerprint("a secret", "m:1") == fingerprint("a secret", "m:1")
    assert len({fingerprint("a secret", "m:1"), fingerprint("a secret", "m:2"), fingerprint("another", "m:1")}) == 3
