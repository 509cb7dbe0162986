"""Metrics, and what reads them: Prometheus itself, promthe alert rules, the dashboard."""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dsa110_contimg.errors import ResourceError
from dsa110_contimg.pipeline.metrics import FIGURES, Metrics
from dsa110_contimg.pipeline.state import State
from tests.needs import program
from tests.pipeline.conftest import free_port, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
FINAL = {
    "snr_gain": 4.0,
    "thermal_ratio": 1.08,
    "flux_ratio": 1.01,
    "offset_arcsec": 0.2,
    "solved_fraction": 0.98,
    "recovered_fraction": 1.02,
    "agreeing_fraction": 0.9,
    "new_sources": 1,
}


def done(arms, published="seeded", fallback=None, mode="seeded", **more):
    return {
        "status": "done",
        "message": "improved",
        "started": 100.0,
        "finished": 200.0,
        "mode": mode,
        "published": published,
        "seeded": published == "seeded",
        "fallback": fallback,
        "quality": "good",
        "arms": {arm: {"figures": FINAL} for arm in arms},
        "seconds": {"total": 20.0, "image": 5.0},
        **more,
    }


@pytest.fixture
def state(tmp_path):
    """A state with one of everything."""
    with State(tmp_path / "s.sqlite3") as state:
        records = [
            done(["seeded"], events={"container_restart": 2}),
            done(["seeded", "unseeded"], "unseeded", fallback="noise"),
            {
                "status": "failed",
                "message": "bad",
                "started": 1.0,
                "finished": 2.0,
                "seconds": {"total": 1.0},
            },
        ]
        now = time.time()
        for k, record in enumerate([*records, None, None]):
            state.add(f"o{k}", Path(f"/in/o{k}.ms"), Path("/out"), now - 1000 + k)
            o = state.find(Path(f"/in/o{k}.ms"))
            if record:
                state.start(o)
                state.finish(o, record)
        state.start(state.next_queued())
        yield state


@pytest.fixture
def metrics(state, config):
    return Metrics(state.path, config, {"products": state.path.parent})


def samples(registry: CollectorRegistry):
    return {
        (s.name, *(f"{k}={v}" for k, v in sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for s in family.samples
    }


def test_every_figure_is_there(metrics):
    found = samples(metrics.registry)
    assert found["contimg_observations", "status=queued"] == 1
    assert found["contimg_observations", "status=running"] == 1
    assert found["contimg_queue_length",] == 1
    assert found["contimg_lag_seconds",] == pytest.approx(1000 - 3 - 309.24, abs=20)
    assert found["contimg_runs_total", "quality=good", "seeded=true", "status=done"] == 1
    assert found["contimg_runs_total", "quality=good", "seeded=false", "status=done"] == 1
    assert found["contimg_runs_total", "quality=none", "seeded=false", "status=failed"] == 1
    assert found["contimg_runs_by_mode_total", "mode=seeded"] == 2
    assert found["contimg_fallbacks_total",] == 1
    assert found["contimg_container_restarts_total",] == 2
    for key, (name, _, _) in FIGURES.items():
        assert found[f"{name}_count", "arm=seeded"] == 2
        assert found[f"{name}_count", "arm=unseeded"] == 1
        assert found[f"{name}_sum", "arm=seeded"] == pytest.approx(2 * FINAL[key])
    assert found["contimg_thermal_ratio_bucket", "arm=seeded", "le=1.05"] == 0
    assert found["contimg_thermal_ratio_bucket", "arm=seeded", "le=1.1"] == 2
    assert found["contimg_thermal_ratio_bucket", "arm=seeded", "le=+Inf"] == 2
    assert found["contimg_stage_seconds_sum", "stage=total"] == 41


def test_what_calls_somebody_begins_at_zero(tmp_path, config):
    """A counter that begins at one is no increase."""
    with State(tmp_path / "empty.sqlite3") as state:
        found = samples(Metrics(state.path, config, {}).registry)
    assert found["contimg_runs_total", "quality=none", "seeded=false", "status=failed"] == 0
    assert found["contimg_runs_total", "quality=bad", "seeded=true", "status=done"] == 0


def test_disks(state, config, tmp_path):
    folders = {"products": tmp_path, "arrivals": tmp_path / "none"}
    found = samples(Metrics(state.path, config, folders).registry)
    there = shutil.disk_usage(tmp_path)
    assert found["contimg_disk_bytes", "holds=products"] == there.total
    assert found["contimg_disk_free_bytes", "holds=products"] == pytest.approx(there.free, rel=0.05)
    assert ("contimg_disk_bytes", "holds=arrivals") not in found


def test_counters_survive_a_restart_and_count_each_run_once(state, metrics, config):
    first, again = samples(metrics.registry), samples(metrics.registry)
    restarted = samples(Metrics(state.path, config, {}).registry)
    changing = {k for k in first if "lag" in k[0] or "created" in k[0] or "disk" in k[0]}
    for other in (again, restarted):
        assert {k: v for k, v in other.items() if k not in changing} == {
            k: v for k, v in first.items() if k not in changing
        }


def test_the_text_file(state, config, tmp_path):
    file = tmp_path / "new" / "contimg.prom"
    Metrics(state.path, config.with_options(metrics_file=file), {}).write_file()
    assert "contimg_queue_length 1.0" in file.read_text()
    assert [p.name for p in file.parent.iterdir()] == ["contimg.prom"]


def test_a_port_that_is_taken_and_another_address(state, config):
    port = free_port()
    config = config.with_options(metrics_port=port)
    other = Metrics(state.path, config.with_options(metrics_address="127.0.0.2"), {})
    with other.serve(), urllib.request.urlopen(f"http://127.0.0.2:{port}/metrics", timeout=30) as answer:
        assert b"contimg_queue_length 1.0" in answer.read()
    with (
        Metrics(state.path, config, {}).serve(),
        pytest.raises(ResourceError, match=f"127.0.0.1:{port}: no metrics can be served"),
        Metrics(state.path, config, {}).serve(),
    ):
        pass


def promtool(*words, text=None):
    done = subprocess.run([program("promtool"), *map(str, words)], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_passes_what_is_exposed(metrics):
    assert promtool("check", "metrics", text=generate_latest(metrics.registry).decode()) == ""


def test_promtool_passes_configuration_rules_and_their_tests():
    assert "SUCCESS" in promtool("check", "config", DEPLOY / "prometheus.yml")
    assert "23 rules found" in promtool("check", "rules", DEPLOY / "contimg-alerts.yml")
    assert "SUCCESS" in promtool("test", "rules", DEPLOY / "contimg-alerts-test.yml")


def queries():
    """Every query of dashboard and alerts, with where it stands."""
    dashboard = json.loads((DEPLOY / "grafana" / "contimg-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", "5m").replace("$job", "contimg")
            yield panel["title"], query


def test_the_dashboard_is_whole(tmp_path):
    """What Grafana needs: unique panels on its grid of 24, sources by variable, queries that are PromQL."""
    dashboard = json.loads((DEPLOY / "grafana" / "contimg-dashboard.json").read_text())
    assert dashboard["title"] == "contimg"
    variables = {v["name"] for v in dashboard["templating"]["list"]}
    assert variables == {"datasource", "job"}
    ids = [p["id"] for p in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    covered = set()
    for p in dashboard["panels"]:
        grid = p["gridPos"]
        assert 0 <= grid["x"] < grid["x"] + grid["w"] <= 24
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & covered, p["title"]
        covered |= cells
        if p["type"] != "row":
            assert p["description"]
            assert p["targets"]
            assert p["datasource"]["uid"] == "${datasource}"
    rules = {"groups": [{"name": "dashboard", "rules": []}]}
    for k, (_, query) in enumerate(queries()):
        rules["groups"][0]["rules"].append({"record": f"dashboard:{k}", "expr": query})
    (tmp_path / "rules.yml").write_text(json.dumps(rules))
    assert f"{len(list(queries()))} rules found" in promtool("check", "rules", tmp_path / "rules.yml")


def test_dashboard_and_alerts_ask_for_metrics_that_exist(metrics):
    exposed = {key[0] for key in samples(metrics.registry)}
    asked = {name for _, query in queries() for name in re.findall(r"\bcontimg_\w+", query)}
    asked |= set(re.findall(r"\bcontimg_\w+(?=[{ )\[])", (DEPLOY / "contimg-alerts.yml").read_text()))
    assert len(asked) > 15
    assert asked <= exposed
    # And nothing that is exposed is watched by nobody.
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    mine = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed if not name.endswith("_created")}
    unwatched = {"contimg_build_info", "contimg_last_finished_timestamp_seconds", "contimg_retries_total"}
    assert mine - families <= unwatched | {"contimg_reverts_total", "contimg_prunes_total"}


def test_a_real_prometheus_scrapes_it(metrics, state, config, tmp_path):
    """The server of the Debian package, with the rules of this project, asked through its own interface."""
    server = program("prometheus")
    ours, theirs = free_port(), free_port()
    (tmp_path / "contimg-alerts.yml").write_text((DEPLOY / "contimg-alerts.yml").read_text())
    text = (DEPLOY / "prometheus.yml").read_text()
    assert "127.0.0.1:9469" in text
    text = text.replace("127.0.0.1:9469", f"127.0.0.1:{ours}").replace("10s", "1s")
    (tmp_path / "prometheus.yml").write_text(text)
    command = [
        server,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{theirs}",
    ]

    def ask(path, **words):
        url = f"http://127.0.0.1:{theirs}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except OSError:
            return {"result": []}

    with (
        Metrics(state.path, config.with_options(metrics_port=ours), {}).serve(),
        (tmp_path / "prometheus.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(lambda: ask("query", query='up{job="contimg"} == 1')["result"], "Prometheus scrapes")
            (queue,) = ask("query", query="contimg_queue_length")["result"]
            assert queue["value"][1] == "1"
            median = 'histogram_quantile(0.5, sum by (le) (contimg_thermal_ratio_bucket{arm="seeded"}))'
            (ratio,) = ask("query", query=median)["result"]
            assert 1.05 < float(ratio["value"][1]) <= 1.1
            assert len(ask("rules")["groups"][0]["rules"]) == 23
        finally:
            process.terminate()
