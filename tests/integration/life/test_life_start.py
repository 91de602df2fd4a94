"""A start that was interrupted is begun again; one that cannot go on says why and leaves nothing running."""

from contextlib import closing

import psycopg2
import pytest

from apps.local.errors import LocalError, StartFailed
from apps.local.postgres import Postgres
from tests.support.anvil import start_anvil
from tests.support.ports import free_port
from tests.support.scratch import scratch
from tests.support.stack import running_stack


def test_cluster__its_making_was_interrupted__made_anew_and_once() -> None:
    with scratch() as directory:
        cluster = Postgres(directory / "postgres", free_port(), "secret")
        partial = directory / "postgres" / "data.new"
        partial.mkdir(parents=True)
        (partial / "PG_VERSION").write_text("18")
        cluster.prepare()
        control = cluster.data / "global" / "pg_control"
        made = control.stat().st_mtime_ns
        cluster.prepare()
        assert (control.stat().st_mtime_ns, partial.exists()) == (made, False)


def test_start__a_chain_where_nothing_may_be_deployed__says_what_to_set_and_stops() -> None:
    refused = pytest.raises(LocalError, match="ETH_RPC_URL is chain 1, where Lido is not ours to deploy")
    with start_anvil(chain_id=1) as anvil, refused, running_stack({"ETH_RPC_URL": anvil.url}):
        pass


@pytest.mark.prove
def test_start__a_migration_fails__told_from_its_log_and_nothing_runs() -> None:
    with running_stack() as stack:
        before = stack.processes()
        stack.up()
        assert {name: info["pid"] for name, info in stack.processes().items()} == {
            name: info["pid"] for name, info in before.items()
        }
        url = stack.status()["database_urls"]["rewards"]
        _execute(url, "UPDATE alembic_version SET version_num = 'unheard'")
        with pytest.raises(StartFailed, match=r"(?s)migrate-rewards did not come up: .*unheard"):
            stack.up()
        assert not stack.running()


def _execute(url: str, statement: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
