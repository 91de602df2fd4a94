"""The Python peer: django-hordak's own transfer between accounts. Run in its own environment, never in ours.

``hordak_peer.py migrate|run URL ACCOUNTS SECONDS SEED``; ``run`` prints how many transfers it made.
"""

import os
import random
import sys
import time

import dj_database_url  # type: ignore[import-not-found]
import django  # type: ignore[import-not-found]
from django.conf import settings  # type: ignore[import-not-found]


def main() -> None:
    what, url, accounts, seconds, seed = sys.argv[1:]
    os.environ["DATABASE_URL"] = url
    settings.configure(
        DATABASES={"default": dj_database_url.parse(url, conn_max_age=None)},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "mptt", "djmoney", "hordak"],
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        HORDAK_MAX_DIGITS=30,
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command  # type: ignore[import-not-found]
    from hordak.models import Account, AccountType  # type: ignore[import-not-found]

    if what == "migrate":
        call_command("migrate", verbosity=0)
        bank = Account.objects.create(name="bank", code="0", type=AccountType.asset, currencies=["EUR"])
        for number in range(1, int(accounts) + 1):
            Account.objects.create(name=f"u{number}", code=str(number), type=AccountType.liability, currencies=["EUR"])
        assert bank.pk
        return
    sys.stdout.write(str(_transfers(random.Random(int(seed)), float(seconds))))


def _transfers(draw: random.Random, seconds: float) -> int:
    """Bank to a random user, each in the transaction that hordak asks for."""
    from django.db import transaction  # type: ignore[import-not-found]
    from hordak.models import Account
    from moneyed import Money  # type: ignore[import-not-found]

    bank = Account.objects.get(name="bank")
    users = list(Account.objects.exclude(name="bank"))
    made = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with transaction.atomic():
            bank.transfer_to(draw.choice(users), Money(5, "EUR"), description="deposit")
        made += 1
    return made


if __name__ == "__main__":
    main()
