"""The alerts: understood by promtool, each fires when it should and only then, also over restarts, and each has its place in
the runbook. deploy/alerts/holdfast.yaml is what the chart renders with its defaults."""

import re
import shutil
import subprocess

import pytest
import yaml

from chart import CHART, ROOT, render, template

PLAIN = ROOT / "deploy/alerts/holdfast.yaml"
MONITORING = ("--api-versions", "monitoring.coreos.com/v1")
VOLUME = '{namespace="shop",persistentvolumeclaim="db"}'
AGENT = '{instance="a",node="n"}'
RESTORES = 'holdfast_restores_total{result="Failed"}'

# Alert: cases of (what, series, minute, how many fire). Values are a minute apart, those of days half an hour; `_` is a
# scrape that found nothing.
CASES = {
    "HoldfastCoordinatorAbsent": [
        ("only agents are there", {'holdfast_build_info{component="agent"}': "1x20"}, 15, 1),
        ("it is there", {'holdfast_build_info{component="coordinator"}': "1x20"}, 15, 0),
        ("it restarts within some minutes", {'holdfast_build_info{component="coordinator"}': "1x5 _x8 1x10"}, 15, 0),
    ],
    "HoldfastRepositoryTaken": [
        ("it was taken, then the process ended", {"holdfast_fenced": "0x3 1 _x10"}, 10, 1),
        ("it is ours", {"holdfast_fenced": "0x20"}, 10, 0),
    ],
    "HoldfastStorageUnreachable": [
        ("away for a while", {"holdfast_storage_location_up": "1x2 0x20"}, 15, 1),
        ("away for a moment", {"holdfast_storage_location_up": "1x2 0x5 1x20"}, 15, 0),
    ],
    "HoldfastStoreFull": [
        ("full", {'holdfast_store_requests_total{operation="put",outcome="full"}': "0 0 3x20"}, 8, 1),
        ("was full before the restart", {'holdfast_store_requests_total{operation="put",outcome="full"}': "3x5 0x20"}, 24, 0),
        ("full again after a restart", {'holdfast_store_requests_total{operation="put",outcome="full"}': "3x10 0 0 2x10"}, 14, 1),
        ("all is well", {'holdfast_store_requests_total{operation="put",outcome="ok"}': "0+5x20"}, 8, 0),
    ],
    "HoldfastStoreErrors": [
        ("many fail", {'holdfast_store_requests_total{operation="get",outcome="failed"}': "0+2x40"}, 35, 1),
        ("one fails now and then", {'holdfast_store_requests_total{operation="get",outcome="failed"}': "0x20 1x20"}, 35, 0),
        ("a restart is no failure", {'holdfast_store_requests_total{operation="get",outcome="failed"}': "90x20 0x20"}, 38, 0),
    ],
    "HoldfastRepositoryDamaged": [
        ("damage", {"holdfast_repository_damage": "2x5"}, 3, 1),
        ("none", {"holdfast_repository_damage": "0x5"}, 3, 0),
    ],
    "HoldfastCatalogDiskFull": [
        ("5 % free", {"holdfast_state_free_bytes": "5x30", "holdfast_state_size_bytes": "100x30"}, 20, 1),
        ("half free", {"holdfast_state_free_bytes": "50x30", "holdfast_state_size_bytes": "100x30"}, 20, 0),
    ],
    "HoldfastCertificateExpires": [
        ("in ten days", {"holdfast_tls_certificate_expiry_timestamp_seconds": "864000x90"}, 80, 1),
        ("in a month", {"holdfast_tls_certificate_expiry_timestamp_seconds": "2592000x90"}, 80, 0),
    ],
    "HoldfastApiUnreachable": [
        ("away", {"holdfast_api_up": "1x2 0x30"}, 20, 1),
        ("upgraded", {"holdfast_api_up": "1x2 0x10 1x30"}, 20, 0),
    ],
    "HoldfastApiRefused": [
        ("always", {'holdfast_api_requests_total{verb="create",resource="pods",code="403"}': "0+1x60"}, 40, 1),
        ("never", {'holdfast_api_requests_total{verb="create",resource="pods",code="201"}': "0+1x60"}, 40, 0),
    ],
    "HoldfastQueueStuck": [
        ("three hours", {"holdfast_queue_oldest_wait_seconds": "10800x30"}, 20, 1),
        ("a minute", {"holdfast_queue_oldest_wait_seconds": "60x30"}, 20, 0),
        ("begun anew by a restart", {"holdfast_queue_oldest_wait_seconds": "10800x5 0x30"}, 20, 0),
    ],
    "HoldfastPolicyInvalid": [
        ("one", {'holdfast_policies{kind="BackupPolicy",phase="Invalid"}': "1x30"}, 20, 1),
        ("none", {'holdfast_policies{kind="BackupPolicy",phase="Invalid"}': "0x30"}, 20, 0),
    ],
    "HoldfastHooksUnfinished": [
        ("one, over a restart", {"holdfast_hooks_unfinished": "0 1x8 _ 1x20"}, 20, 1),
        ("one that was run a minute later", {"holdfast_hooks_unfinished": "0 1 0x30"}, 20, 0),
    ],
    "HoldfastHookGivenUp": [
        ("one", {'holdfast_hooks_total{hook="post",result="given_up"}': "0 0 1x20"}, 10, 1),
        ("attempts fail, and then one succeeds", {'holdfast_hooks_total{hook="post",result="failed"}': "0 0 3x20"}, 10, 0),
        ("none, but a restart", {'holdfast_hooks_total{hook="post",result="given_up"}': "2x5 0x90"}, 70, 0),
    ],
    "HoldfastHookFailed": [
        ("one", {'holdfast_hooks_total{hook="pre",result="failed"}': "0 0 1x20"}, 10, 1),
        ("all are well", {'holdfast_hooks_total{hook="pre",result="done"}': "0+1x20"}, 10, 0),
    ],
    "HoldfastRestoreFailed": [
        ("one", {"holdfast_restore_failure_total": "0 0 1x20", RESTORES: "0x30"}, 10, 1),
        ("a Restore that never came to a job", {"holdfast_restore_failure_total": "0x30", RESTORES: "0 0 1x20"}, 10, 1),
        ("one was stopped", {"holdfast_restore_failure_total": "0x30", 'holdfast_restores_total{result="Cancelled"}': "0 0 1x20"}, 10, 0),
        ("the first after a restart", {"holdfast_restore_failure_total": "4x5 0 0 1x20", RESTORES: "4x5 0x30"}, 10, 1),
        ("none, but a restart", {"holdfast_restore_failure_total": "4x5 0x90", RESTORES: "4x5 0x90"}, 70, 0),
    ],
    "HoldfastAgentMissing": [
        ("missing", {'holdfast_node_agent_connected{node="n1"}': "1 0x30", 'holdfast_node_agent_connected{node="n2"}': "1x30"}, 20, 1),
        ("rolled out", {'holdfast_node_agent_connected{node="n1"}': "1 0x5 1x30"}, 20, 0),
        ("all come back after the coordinator's restart", {'holdfast_node_agent_connected{node="n1"}': "1x3 _x3 0x2 1x30"}, 20, 0),
    ],
    "HoldfastAgentDisconnected": [
        ("for long", {"holdfast_agent_connected" + AGENT: "1 0x30"}, 20, 1),
        ("for a moment", {"holdfast_agent_connected" + AGENT: "1 0x5 1x30"}, 20, 0),
    ],
    "HoldfastJournalMostlyWalking": [
        ("three of four", {'holdfast_volume_journal{mode="walk"}': "3x600", 'holdfast_volume_journal{mode="trusted"}': "1x600"}, 400, 1),
        ("one of four", {'holdfast_volume_journal{mode="walk"}': "1x600", 'holdfast_volume_journal{mode="trusted"}': "3x600"}, 400, 0),
        ("no volumes", {'holdfast_volume_journal{mode="walk"}': "0x600", 'holdfast_volume_journal{mode="trusted"}': "0x600"}, 400, 0),
    ],
    "HoldfastSilentChanges": [
        ("some", {"holdfast_agent_silent_changes_total" + AGENT: "0 0 2x60"}, 30, 1),
        ("none, and a restart", {"holdfast_agent_silent_changes_total" + AGENT: "0x10 _x3 0x60"}, 30, 0),
        ("one after a restart", {"holdfast_agent_silent_changes_total" + AGENT: "1x10 0 0 1x60"}, 30, 1),
    ],
    "HoldfastMissedChanges": [
        ("some", {"holdfast_agent_missed_changes_total" + AGENT: "0 0 2x60"}, 30, 1),
        ("none", {"holdfast_agent_missed_changes_total" + AGENT: "0x60"}, 30, 0),
    ],
    # A minute is a minute since 1970: what was at 0 is as old as the case is long.
    "HoldfastNoRecentBackup": [
        ("four hours of an hourly one", {"holdfast_last_success_timestamp_seconds" + VOLUME: "0x400",
                                         "holdfast_schedule_expected_interval_seconds" + VOLUME: "3600x400"}, 240, 1),
        ("two hours of an hourly one", {"holdfast_last_success_timestamp_seconds" + VOLUME: "0x400",
                                        "holdfast_schedule_expected_interval_seconds" + VOLUME: "3600x400"}, 120, 0),
        ("still old after a restart", {"holdfast_last_success_timestamp_seconds" + VOLUME: "0x200 _x4 0x200",
                                       "holdfast_schedule_expected_interval_seconds" + VOLUME: "3600x200 _x4 3600x200"}, 240, 1),
        ("no policy promises anything", {"holdfast_last_success_timestamp_seconds" + VOLUME: "0x400"}, 240, 0),
    ],
    "HoldfastNeverBackedUp": [
        ("two days of a daily one", {"holdfast_schedule_expected_interval_seconds" + VOLUME: "86400x3000"}, 2820, 1),
        ("an hour of a daily one", {"holdfast_schedule_expected_interval_seconds" + VOLUME: "86400x3000"}, 60, 0),
        ("two weeks of a weekly one", {"holdfast_schedule_expected_interval_seconds" + VOLUME: "604800x3000"}, 19020, 0),
        ("backed up", {"holdfast_schedule_expected_interval_seconds" + VOLUME: "86400x3000",
                       "holdfast_last_success_timestamp_seconds" + VOLUME: "0x3000"}, 2820, 0),
    ],
    "HoldfastNeverBackedUpInAWeek": [
        ("two days of a weekly one", {"holdfast_schedule_expected_interval_seconds" + VOLUME: "604800x3000"}, 2820, 0),
        ("two weeks of a weekly one", {"holdfast_schedule_expected_interval_seconds" + VOLUME: "604800x3000"}, 19020, 1),
        ("two weeks of a daily one", {"holdfast_schedule_expected_interval_seconds" + VOLUME: "86400x3000"}, 19020, 0),
    ],
    "HoldfastBackupFailing": [
        ("three in a row", {"holdfast_consecutive_failures" + VOLUME: "0 1 2 3x10"}, 8, 1),
        ("two in a row", {"holdfast_consecutive_failures" + VOLUME: "0 1 2 2x10"}, 8, 0),
        ("mended", {"holdfast_consecutive_failures" + VOLUME: "3x5 0x10"}, 8, 0),
        ("known again after a restart", {"holdfast_consecutive_failures" + VOLUME: "3x5 _x3 3x10"}, 12, 1),
    ],
    "HoldfastBackupFailed": [
        ("one", {"holdfast_backup_failure_total" + VOLUME: "0 0 1x20"}, 10, 1),
        ("a restart", {"holdfast_backup_failure_total" + VOLUME: "7x5 0x90"}, 70, 0),
        ("one after a restart", {"holdfast_backup_failure_total" + VOLUME: "7x5 0 0 1x20"}, 12, 1),
    ],
    "HoldfastBackupPartial": [
        ("two files", {"holdfast_last_snapshot_problems" + VOLUME: "2x30"}, 20, 1),
        ("whole again", {"holdfast_last_snapshot_problems" + VOLUME: "2x10 0x20"}, 20, 0),
    ],
    "HoldfastExposureTooOld": [
        ("three times the bound", {"holdfast_volume_exposed_seconds" + VOLUME: "3600x30",
                                   "holdfast_volume_exposure_bound_seconds" + VOLUME: "600x30"}, 20, 1),
        ("at the bound", {"holdfast_volume_exposed_seconds" + VOLUME: "600x30",
                          "holdfast_volume_exposure_bound_seconds" + VOLUME: "600x30"}, 20, 0),
    ],
    "HoldfastSuspiciousSnapshot": [
        ("one", {"holdfast_volume_snapshots_suspicious" + VOLUME: "1x5"}, 3, 1),
        ("acknowledged", {"holdfast_volume_snapshots_suspicious" + VOLUME: "1x5 stale"}, 8, 0),
    ],
    "HoldfastVolumeUnprotected": [
        ("no policy", {'holdfast_volume_unprotected{namespace="shop",persistentvolumeclaim="db",reason="NoPolicyMatches"}': "1x90"}, 80, 1),
        ("said so", {'holdfast_volume_unprotected{namespace="shop",persistentvolumeclaim="db",reason="ExcludedByAnnotation"}': "1x90"}, 80, 0),
        ("for a moment", {'holdfast_volume_unprotected{namespace="shop",persistentvolumeclaim="db",reason="NoPolicyMatches"}': "1x20 stale"}, 80, 0),
    ],
}


@pytest.fixture(scope="module")
def promtool():
    found = shutil.which("promtool")
    if not found:
        pytest.skip("promtool is not installed (Debian: prometheus): alerts are not tried")
    return found


def rules():
    return [rule for group in yaml.safe_load(PLAIN.read_text())["groups"] for rule in group["rules"]]


def rendered(values=None):
    return render(values, *MONITORING).one("PrometheusRule")


def test_the_plain_file_is_what_the_chart_renders():
    assert yaml.safe_load(PLAIN.read_text())["groups"] == rendered()["spec"]["groups"], "run scripts/render-manifests.sh"


def test_promtool_understands_them(promtool):
    done = subprocess.run([promtool, "check", "rules", PLAIN], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(rules())} rules found" in done.stdout


def test_every_alert_fires_when_it_should_and_only_then(promtool, tmp_path):
    assert set(CASES) == {rule["alert"] for rule in rules()}
    tests = {"1m": [], "30m": []}
    for alert, cases in CASES.items():
        assert any(fires for *_, fires in cases) and any(not fires for *_, fires in cases), f"{alert}: both sides"
        for what, series, minute, fires in cases:
            step = "30m" if minute > 1000 else "1m"
            tests[step].append({
                "name": f"{alert}: {what}", "interval": step,
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [{
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                    "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": fires}]}],
            })
    for step, of_step in tests.items():
        file = tmp_path / f"{step}.yaml"
        file.write_text(yaml.safe_dump({"rule_files": [str(PLAIN)], "evaluation_interval": step, "tests": of_step}))
        done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_people_read_names_the_volume(promtool, tmp_path):
    rule = next(rule for rule in rules() if rule["alert"] == "HoldfastBackupFailing")
    text = {key: value.replace("{{ $labels.namespace }}", "shop").replace("{{ $labels.persistentvolumeclaim }}", "db")
            .replace("{{ $value }}", "4") for key, value in rule["annotations"].items()}
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(PLAIN)], "tests": [{
        "interval": "1m",
        "input_series": [{"series": "holdfast_consecutive_failures" + VOLUME, "values": "4x10"}],
        "alert_rule_test": [{"alertname": "HoldfastBackupFailing", "eval_time": "5m", "exp_alerts": [{
            "exp_labels": {"namespace": "shop", "persistentvolumeclaim": "db", "severity": "critical"},
            "exp_annotations": text}]}]}]}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_has_a_severity_words_and_its_place_in_the_runbook():
    runbook = (ROOT / "deploy/RUNBOOK.md").read_text()
    headings = set(re.findall(r"^## (\w+)$", runbook, re.MULTILINE))
    assert headings == {rule["alert"] for rule in rules()}
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]
        assert rule["annotations"]["runbook_url"] == f"deploy/RUNBOOK.md#{rule['alert'].lower()}"
    for section in re.split(r"^## ", runbook, flags=re.MULTILINE)[1:]:
        assert "`" in section, f"what is to be typed? {section[:40]}"


def test_they_ask_only_for_what_there_is():
    documented = set(re.findall(r"^\| `(holdfast_\w+)` \|", (ROOT / "deploy/METRICS.md").read_text(), re.MULTILINE))
    for rule in rules():
        asked = set(re.findall(r"holdfast_\w+", rule["expr"]))
        assert asked <= documented, f"{rule['alert']}: {asked - documented}"


def test_thresholds_names_and_labels_are_the_users():
    values = {"metrics": {"prometheusRule": {
        "thresholds": {"failuresInARow": 7, "agentMissingFor": "2h"}, "disabled": ["HoldfastBackupFailed"],
        "labels": {"release": "kube-prometheus"}, "alertLabels": {"team": "storage"}, "runbookUrl": "https://wiki/x"}}}
    found = rendered(values)
    assert found["metadata"]["labels"]["release"] == "kube-prometheus"
    by_name = {rule["alert"]: rule for group in found["spec"]["groups"] for rule in group["rules"]}
    assert "HoldfastBackupFailed" not in by_name
    assert by_name["HoldfastBackupFailing"]["expr"].endswith(">= 7")
    assert by_name["HoldfastAgentMissing"]["for"] == "2h"
    assert by_name["HoldfastAgentMissing"]["labels"] == {"severity": "critical", "team": "storage"}
    assert by_name["HoldfastAgentMissing"]["annotations"]["runbook_url"] == "https://wiki/x#holdfastagentmissing"
    assert "<<" not in yaml.safe_dump(found)


def test_there_is_none_where_it_cannot_be_or_is_not_wanted():
    assert "PrometheusRule" not in render().kinds()
    off = {"metrics": {"prometheusRule": {"enabled": False}}}
    assert "PrometheusRule" not in render(off, *MONITORING).kinds()
    assert "PrometheusRule" in render({"metrics": {"prometheusRule": {"force": True}}}).kinds()
    assert template({"metrics": {"prometheusRule": {"thresholds": {"failures": 1}}}}).returncode != 0


def test_thresholds_are_all_used():
    text = (CHART / "alerts/holdfast.yaml").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())["metrics"]["prometheusRule"]["thresholds"]
    assert set(re.findall(r"<<(\w+)>>", text)) == set(values)
