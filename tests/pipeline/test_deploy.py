"""The service, the container recipe and the shipped options."""

import re
import subprocess
from pathlib import Path

import pytest

from dsa110_contimg.config import PipelineConfig, parse_retention
from tests.needs import program

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def service(tmp_path):
    """The service, with a program that is there."""
    text = (DEPLOY / "contimg-watch.service").read_text()
    assert "/opt/contimg/bin/contimg" in text
    file = tmp_path / "contimg-watch.service"
    file.write_text(text.replace("/opt/contimg/bin/contimg", "/bin/true"))
    return file


def analyze(*words):
    done = subprocess.run([program("systemd-analyze"), *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def timer(tmp_path):
    """The daily removal, with a program that is there, and its timer."""
    for name in ("contimg-prune.service", "contimg-prune.timer"):
        text = (DEPLOY / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/contimg/bin/contimg", "/bin/true"))
    return tmp_path / "contimg-prune.timer"


def test_systemd_passes_the_service_and_the_timer(service, timer):
    assert analyze("verify", service) == (0, "")
    assert analyze("verify", timer) == (0, "")
    assert analyze("verify", timer.with_suffix(".service")) == (0, "")


@pytest.mark.parametrize("unit", ["contimg-watch.service", "contimg-prune.service"])
def test_services_have_least_privilege(service, timer, unit):
    """By systemd's own measure, from 0 (safe) to 10; without the settings of the unit it is 9.2."""
    status, text = analyze("security", "--offline=true", "--threshold=20", service.with_name(unit))
    assert status == 0, text
    assert float(re.search(r"exposure level for .*: ([\d.]+)", text)[1]) <= 2.0


def test_the_shipped_options_are_options(monkeypatch):
    config = PipelineConfig.load(DEPLOY / "contimg.toml")
    assert config.use_nvss_seeding
    assert config.caltables == "required"
    assert parse_retention(config.retention)
    # The variables of the service are read as well.
    text = (DEPLOY / "contimg-watch.service").read_text()
    variables = re.findall(r"^Environment=(CONTIMG_(\w+))=(.*)$", text, re.M)
    assert len(variables) == 3
    for variable, name, value in variables:
        monkeypatch.setenv(variable, value)
        assert str(getattr(PipelineConfig.load(DEPLOY / "contimg.toml"), name.lower())) == value


def test_the_container_runs_without_privilege():
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    told = " ".join(line.strip("# \\") for line in lines if line.startswith("#"))
    for option in ("--read-only", "--tmpfs /tmp", "--cap-drop=all", "--security-opt=no-new-privileges"):
        assert option in told
    assert "USER contimg" in lines
    assert lines.index("USER contimg") < lines.index('ENTRYPOINT ["contimg"]')
    assert not any(line.startswith("ADD") or "sudo" in line for line in lines)
