"""What ops look at: every query of the metrics runs on the real tables, and every alert and panel names a real metric."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

OPS = Path(__file__).parents[2] / "docs" / "ops"
COLLECTORS = sorted((OPS / "sql-exporter").glob("*.collector.yml"))
# Measured in the services' own processes (`apps/common/metrics.py`, `service_app.py`) and by others' programs.
ELSEWHERE = re.compile(r"(staking_http_\w+|staking_api_keys_\w+|flower_\w+|process_\w+|python_\w+|up|scrape_\w+)")


def metrics(collector: Path) -> dict[str, str]:
    """Metric name to its query: the files keep to one shape, which is all that is understood here."""
    found = {}
    for part in collector.read_text().split("\n  - metric_name: ")[1:]:
        name, _, rest = part.partition("\n")
        inline = re.search(r"^    query: (?!\|)(.+)$", rest, re.M)
        block = re.search(r"^    query: \|\n((?:      .*\n|\n)+)", rest + "\n", re.M)
        assert inline or block, f"{collector.name}: {name} has no query"
        found[name.strip()] = inline.group(1) if inline else str(block and block.group(1))
    return found


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bstaking_[a-z0-9_]+\b", text))


@pytest.mark.parametrize("collector", COLLECTORS, ids=lambda path: path.name.split(".")[0])
def test_collector__every_query__runs_on_the_migrated_tables(
    collector: Path, make_database: Callable[[str], str]
) -> None:
    queries = metrics(collector)
    assert len(queries) >= 3
    connection = psycopg2.connect(make_database(collector.name.split(".")[0]))
    connection.autocommit = True
    with connection.cursor() as cursor:
        for name, query in queries.items():
            cursor.execute(query)
            columns = [column.name for column in cursor.description or ()]
            assert "value" in columns, f"{name} answers {columns}"
    connection.close()


def test_alerts_and_dashboard__every_metric__is_one_that_exists() -> None:
    known = {name for collector in COLLECTORS for name in metrics(collector)}
    alerts = (OPS / "alerts.yml").read_text()
    dashboard = (OPS / "grafana" / "dashboards" / "staking.json").read_text()
    json.loads(dashboard)
    for where, text in (("alerts.yml", alerts), ("staking.json", dashboard)):
        used = names_in(text)
        assert len(used) > 5, where
        unknown = {name for name in used if name not in known and not ELSEWHERE.fullmatch(name)}
        assert unknown == set(), where


def test_runbook__every_alert__has_its_section() -> None:
    alerts = re.findall(r"^\s*- alert: (\w+)$", (OPS / "alerts.yml").read_text(), re.M)
    sections = " ".join(re.findall(r"^### (.+)$", (OPS / "README.md").read_text(), re.M))
    assert len(alerts) > 5
    assert [name for name in alerts if name not in sections.replace(",", " ").split()] == []
