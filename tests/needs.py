"""What tests need beyond Python: skipped with the reason where it cannot be had, failed where it must be."""

from __future__ import annotations

import os
import shutil

import pytest

#: Programs that tests run, and Debian's packages that have them (scripts/test_packages.sh installs them).
PACKAGES = {
    "wsclean": "wsclean",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
    "chromium": "chromium",
    "jq": "jq",
}
#: With this variable set to 1 nothing may be skipped.
REQUIRE_ALL = "CONTIMG_REQUIRE_ALL"


def unavailable(message: str) -> None:
    """Skip with a reason, or fail where nothing may be skipped."""
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{message}, and {REQUIRE_ALL}=1")
    pytest.skip(message)


def program(name: str) -> str:
    """Find a program."""
    found = shutil.which(name)
    if found is None:
        unavailable(f"{name} is not installed (Debian: apt-get install {PACKAGES[name]})")
        raise AssertionError
    return found
