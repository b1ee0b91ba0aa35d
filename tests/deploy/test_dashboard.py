"""The dashboard as Grafana reads it: unique panels that do not overlap, a data source that can be chosen, queries of families
that there are."""

import json
import re

import yaml

from chart import ROOT, render

DASHBOARD = json.loads((ROOT / "deploy/dashboards/holdfast.json").read_text())
ROWS = ["Protection", "Exposure", "Runs", "Agents and journal", "Repository", "Restores", "API and queue"]


def panels():
    return DASHBOARD["panels"]


def test_rows_ids_and_places():
    assert [p["title"] for p in panels() if p["type"] == "row"] == ROWS
    ids = [p["id"] for p in panels()]
    assert len(ids) == len(set(ids))
    taken = {}
    for panel in panels():
        at = panel["gridPos"]
        assert 0 <= at["x"] and at["x"] + at["w"] <= 24 and at["w"] > 0 and at["h"] > 0
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken.get((x, y))}"
                taken[x, y] = panel["title"]


def test_it_works_with_any_data_source():
    assert DASHBOARD["schemaVersion"] >= 36 and DASHBOARD["uid"] == "holdfast" and "id" not in DASHBOARD
    variables = {v["name"]: v for v in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    for panel in panels():
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "${datasource}"
        refs = [t["refId"] for t in panel["targets"]]
        assert refs and len(refs) == len(set(refs))
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"


def test_it_asks_only_for_what_there_is():
    documented = set(re.findall(r"^\| `(holdfast_\w+)` \|", (ROOT / "deploy/METRICS.md").read_text(), re.MULTILINE))
    for panel in panels():
        for target in panel.get("targets", []):
            for name in re.findall(r"holdfast_\w+", target["expr"]):
                assert re.sub(r"_bucket$", "", name) in documented, f"{panel['title']}: {name}"


def test_the_chart_gives_it_to_grafana():
    assert not any(o["metadata"]["name"].endswith("-dashboard") for o in render())
    values = {"metrics": {"grafanaDashboard": {"enabled": True, "namespace": "monitoring", "labels": {"grafana_dashboard": "1"}}}}
    found = render(values).one("ConfigMap", "hf-holdfast-dashboard")
    assert found["metadata"]["namespace"] == "monitoring"
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["holdfast.json"]) == DASHBOARD
    assert len(yaml.safe_dump(found)) < 1_000_000
