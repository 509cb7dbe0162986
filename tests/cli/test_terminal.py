"""What a journal is given."""

import logging
import re
import subprocess
import sys

import pytest

from dsa110_contimg.cli.terminal import LineFormatter

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (\w+) (\S+) (.*)")


@pytest.mark.parametrize("journal", [False, True])
def test_a_line_for_each_record(journal):
    record = logging.makeLogRecord(
        {"levelno": logging.WARNING, "levelname": "WARNING", "msg": "one\ntwo\r\n%s", "args": ("three",)}
    )
    said = LineFormatter(journal=journal).format(record)
    mark, line = said[: 3 * journal], said[3 * journal :]
    assert mark == ("<4>" if journal else "")
    assert LINE.fullmatch(line).groups() == ("warning", "-", "one two three")
    record.observation = "2026-01-25T22:26:05"
    assert LINE.fullmatch(LineFormatter().format(record))[2] == "2026-01-25T22:26:05"


def test_an_error_is_in_its_line():
    try:
        raise ValueError("of two\nlines")
    except ValueError:
        record = logging.makeLogRecord({"levelname": "ERROR", "msg": "internal", "exc_info": sys.exc_info()})
    assert LineFormatter().format(record).endswith("internal (ValueError: of two lines)")


def test_warnings_are_not_broken_where_nobody_looks(monkeypatch):
    monkeypatch.setenv("CONTIMG_NO_SUCH_OPTION_" + "X" * 100, "1")
    command = [sys.executable, "-m", "dsa110_contimg", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert LINE.fullmatch(line)[1] == "warning"
