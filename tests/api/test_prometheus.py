"""The Prometheus page: who may read it, what is on it, and the dashboard that is drawn of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from scaleway.rdb.v1 import Instance

from tests.support.high_availability import remove
from tests.support.keys import create
from tests.support.service import ROOT, Service, wait_until

OWN = ("openrdb_", "python_", "process_")
SELECTOR = re.compile(r"(openrdb_\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"by \((\w+)\) \((openrdb_\w+)")
OF_ALL = re.compile(r"label_values\((openrdb_\w+).*, (\w+)\)$")


@pytest.fixture
def instance(service: Service) -> Iterator[Instance]:
    made = service.create(name='scraped "one"\\')
    yield made
    remove(service, made)


def families(service: Service) -> dict[str, Metric]:
    text = service.request("GET", "//metrics").text
    return {one.name: one for one in text_string_to_metric_families(text)}


def of_instance(page: dict[str, Metric], name: str, instance: Instance) -> list[dict[str, str]]:
    found = page[name].samples
    return [one.labels for one in found if one.labels["instance"] == instance.id]


def test_who_may_read_it(service: Service) -> None:
    def status(**headers: str) -> int:
        return requests.get(f"{service.url}/metrics", headers=headers, timeout=30).status_code

    assert status() == 401
    assert status(Authorization="Bearer nobody's") == 401
    assert status(Authorization=f"Bearer {service.secret_key}") == 200
    assert status(Authorization=f"Basic {service.secret_key}") == 401
    assert service.request("GET", "//metrics").headers["content-type"].startswith("text/plain")
    assert status(**{"X-Auth-Token": create(service)["SCW_SECRET_KEY"]}) == 403
    scraping = create(service, "--organization", "--read-only")["SCW_SECRET_KEY"]
    assert status(Authorization=f"Bearer {scraping}") == 200
    # The API itself knows no bearers.
    instances = f"{service.url}/rdb/v1/regions/fr-par/instances"
    bearer = {"Authorization": f"Bearer {service.secret_key}"}
    assert requests.get(instances, headers=bearer, timeout=30).status_code == 401


def test_what_is_on_it(service: Service, instance: Instance) -> None:
    wait_until(lambda: of_instance(families(service), "openrdb_node_cpu_usage_percent", instance))
    page = families(service)
    (labels,) = of_instance(page, "openrdb_node_cpu_usage_percent", instance)
    assert labels["name"] == instance.name
    assert (labels["role"], labels["region"]) == ("primary", "fr-par")
    assert labels["engine"] == instance.engine
    assert [one.value for one in page["openrdb_agent_up"].samples] == [1]
    assert not [name for name in page if not name.startswith(OWN)]
    done = [one for one in page["openrdb_operations"].samples if one.labels["status"] == "done"]
    assert "create_instance" in {one.labels["kind"] for one in done}


def expressions(part: Any) -> Iterator[tuple[str, str]]:
    """Each expression of a dashboard, with the legend of its series."""
    if isinstance(part, dict):
        if isinstance(part.get("expr"), str):
            yield part["expr"], part["legendFormat"]
        if part.get("type") == "query":
            yield part["query"], ""
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from expressions(one)


def test_the_dashboard_shows_what_is_there(service: Service, instance: Instance) -> None:
    dashboard = json.loads((ROOT / "docs/grafana.json").read_text())
    wait_until(lambda: of_instance(families(service), "openrdb_node_cpu_usage_percent", instance))
    page = families(service)

    def labels(name: str) -> set[str]:
        """Those of a metric; those of its like, where nothing is to be shown of it now."""
        samples = page[name].samples
        like = "openrdb_node_cpu_usage_percent" if name.startswith("openrdb_node_") else None
        return set((samples or page[like].samples)[0].labels) if samples or like else set()

    found = list(expressions(dashboard))
    assert len(found) > 10
    drawn = set()
    for expression, legend in found:
        selectors = SELECTOR.findall(expression)
        assert selectors, expression
        for name, conditions in selectors:
            drawn.add(name)
            assert name in page, f"{name} of {expression} is not on the page"
            used = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", conditions))
            used |= {label for label, of in GROUPED.findall(expression) if of == name}
            used |= {label for of, label in OF_ALL.findall(expression) if of == name}
            grouped = GROUPED.search(expression)
            shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
            assert not grouped or shown <= {grouped[1]}
            if labels(name):
                assert used | shown <= labels(name), f"{expression} uses labels that are not there"
    assert {name for name in page if name.startswith("openrdb_node_")} - drawn == {
        "openrdb_node_mem_usage_bytes",
        "openrdb_node_disk_usage_bytes",
    }
