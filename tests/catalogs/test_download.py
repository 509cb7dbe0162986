"""Downloads from a server on this machine that misbehaves in every way."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dsa110_contimg.catalogs.download import fetch, is_url
from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, InputError, ResourceError

DATA = bytes(range(256)) * 8000  # 2 MB
HASH = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `data`; what goes wrong is set by the test."""

    def __init__(self) -> None:
        self.data, self.tag, self.ranges = DATA, '"one"', True
        self.cuts: list[int] = []  # connections in turn break after so many bytes
        self.answers: list[int] = []  # statuses to answer first
        self.extra = 0  # added to the length that is told
        self.silence = 0.0
        self.asked: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/pub/NVSS%20all.fits?x=1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers.get("Range"))
        time.sleep(server.silence)
        if server.answers:
            self.send_error(server.answers.pop(0))
            return
        start = 0
        wanted = self.headers.get("Range")
        if wanted and server.ranges and self.headers.get("If-Range") == server.tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        else:
            self.send_response(200)
        body = server.data[start:]
        self.send_header("Content-Length", str(len(body) + server.extra))
        self.send_header("ETag", server.tag)
        self.end_headers()
        if server.cuts:
            body = body[: server.cuts.pop(0)]
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_whole_file_and_no_second_request(server: Server, tmp_path: Path) -> None:
    path = fetch(server.url, tmp_path / "down", sha256=HASH.upper())
    assert path == tmp_path / "down" / "NVSS all.fits"
    assert path.read_bytes() == DATA
    assert fetch(server.url, tmp_path / "down") == path
    assert server.asked == [None]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_cut_connections_are_taken_up_where_they_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = [700_000, 500_000, 100_000]
    assert fetch(server.url, tmp_path, sha256=HASH).read_bytes() == DATA
    assert server.asked == [None, "bytes=700000-", "bytes=1200000-", "bytes=1300000-"]


def test_a_later_call_resumes(server: Server, tmp_path: Path) -> None:
    server.cuts = [900_000, 0, 0]
    with pytest.raises(ResourceError, match="900000 bytes have arrived"):
        fetch(server.url, tmp_path, retries=1)
    assert not (tmp_path / "NVSS all.fits").exists()
    assert fetch(server.url, tmp_path, sha256=HASH).read_bytes() == DATA
    assert server.asked[-1] == "bytes=900000-"


def test_a_changed_file_is_not_joined_to_the_old_one(server: Server, tmp_path: Path) -> None:
    server.cuts = [900_000, 0]
    with pytest.raises(ResourceError):
        fetch(server.url, tmp_path, retries=0)
    server.cuts, server.data, server.tag = [], DATA[::-1], '"two"'
    assert fetch(server.url, tmp_path).read_bytes() == DATA[::-1]


def test_a_server_without_ranges_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [900_000]
    assert fetch(server.url, tmp_path).read_bytes() == DATA


def test_a_partial_file_longer_than_the_servers_is_dropped(server: Server, tmp_path: Path) -> None:
    server.cuts = [900_000, 0]
    with pytest.raises(ResourceError):
        fetch(server.url, tmp_path, retries=0)
    server.data = DATA[:1000]
    assert fetch(server.url, tmp_path).read_bytes() == DATA[:1000]


def test_wrong_length_is_not_taken_for_the_file(server: Server, tmp_path: Path) -> None:
    server.extra, server.ranges = 10, False
    with pytest.raises(ResourceError, match=r"cannot be fetched \(.*2048000"):
        fetch(server.url, tmp_path, retries=1)
    assert not (tmp_path / "NVSS all.fits").exists()


def test_wrong_checksum(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CatalogFormatError, match=f"is {HASH}, not {'0' * 64}"):
        fetch(server.url, tmp_path, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []
    fetch(server.url, tmp_path)
    with pytest.raises(CatalogFormatError, match="checksum"):
        fetch(server.url, tmp_path, sha256="0" * 64)


def test_busy_servers_are_asked_again_missing_files_are_not(server: Server, tmp_path: Path) -> None:
    server.answers = [503, 500]
    assert fetch(server.url, tmp_path / "a").read_bytes() == DATA
    server.answers = [404]
    with pytest.raises(CatalogMissingError, match="404"):
        fetch(server.url, tmp_path / "b")
    assert len(server.asked) == 4


def test_a_silent_server_is_given_up(server: Server, tmp_path: Path) -> None:
    server.silence = 0.6
    with pytest.raises(ResourceError, match=r"timed out.*run the same command again"):
        fetch(server.url, tmp_path, timeout_s=0.1, retries=1)


def test_offline(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/nvss.fits"
        with pytest.raises(ResourceError, match=r"refused.*fetch it elsewhere and give the file") as caught:
            fetch(url, tmp_path, retries=1)
    assert "\n" not in str(caught.value)


def test_disk_and_folder(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be written"):
        fetch(server.url, tmp_path / "file" / "down")


@pytest.mark.parametrize(
    "url", ["ftp://host/nvss.fits", "http:///nvss.fits", "https://host/", "file:///etc/passwd"]
)
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    assert is_url(url)
    with pytest.raises(InputError, match="not the address of a file"):
        fetch(url, tmp_path)


def test_a_checksum_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a SHA-256"):
        fetch("http://host/a.fits", tmp_path, sha256="abc")
    assert not is_url("data/nvss.fits")
    assert not is_url("C:/nvss.fits")
