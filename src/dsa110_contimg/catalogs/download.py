"""Fetching a catalogue file once: resumed where it broke off, checked, and then never asked for again."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from dsa110_contimg.errors import CatalogFormatError, CatalogMissingError, InputError, ResourceError
from dsa110_contimg.files import write_json
from dsa110_contimg.progress import LogProgress, Progress

__all__ = ["fetch", "is_url"]

CHUNK_BYTES = 1 << 18
TICK_BYTES = 1 << 20
ELSEWHERE = "or fetch it elsewhere and give the file"


def is_url(source: str) -> bool:
    """Return whether a source is an address and not a file."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source) is not None


def fetch(
    url: str,
    folder: Path,
    *,
    sha256: str | None = None,
    timeout_s: float = 30.0,
    retries: int = 5,
    progress: Progress | None = None,
) -> Path:
    """Fetch a file over HTTP into a folder, unless it is there already.

    What has arrived is kept in ``NAME.part``. A broken connection is taken up again where it broke off, in
    this call and in later ones, if the server still has the same file. The file gets its name when it is
    complete.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://``.
    folder : Path
        Where the file goes, under the last part of the address.
    sha256 : str, optional
        What the hash of the file must be.
    timeout_s : float
        Longest silence of the server in seconds.
    retries : int
        Attempts in a row that may bring nothing new.
    progress : Progress, optional
        Follows the bytes.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        Not such an address, or no hash.
    CatalogMissingError
        The server has no such file.
    CatalogFormatError
        The file has another hash.
    ResourceError
        No connection, or one that breaks again and again; or the folder cannot be written.
    """
    parts = urllib.parse.urlsplit(url)
    name = Path(urllib.parse.unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not parts.hostname or not name:
        raise InputError("is not the address of a file", url, "give http:// or https://, or a file")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise InputError(f"the checksum {sha256!r} is not a SHA-256", "sha256", "give 64 hexadecimal digits")
    final = folder / name
    if final.exists():
        _check_hash(final, sha256, url)
        return final
    download = _Download(url, folder / f"{name}.part", timeout_s, progress or LogProgress())
    failures = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            before = download.size
            try:
                download.attempt()
                break
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429:
                    raise CatalogMissingError(
                        f"the server answers {error.code} {error.reason}", url, "check the address"
                    ) from None
                if _is_local(error):
                    raise
                failures = 0 if download.size > before else failures + 1
                if failures > retries:
                    raise ResourceError(
                        f"cannot be fetched ({_reason(error)}), {download.size} bytes have arrived",
                        url,
                        f"run the same command again when there is a connection, {ELSEWHERE}",
                    ) from None
                time.sleep(min(0.1 * 2**failures, 5.0))
        _check_hash(download.part, sha256, url)
        download.part.replace(final)
        download.note.unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(
            f"cannot be written ({error.strerror or error})", folder, "check free space and permissions"
        ) from error
    return final


class _Download:
    """A file that has arrived in part, with what the server said of the whole."""

    def __init__(self, url: str, part: Path, timeout_s: float, progress: Progress) -> None:
        self.url, self.part, self.timeout_s, self.progress = url, part, timeout_s, progress
        self.note = part.with_suffix(".part.json")

    @property
    def size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def attempt(self) -> None:
        """Ask for what is missing and take it; raise OSError or HTTPException where it breaks off."""
        start, validator = self.size, self._validator()
        request = urllib.request.Request(self.url, headers={"Accept-Encoding": "identity"})
        if start and validator:
            request.add_header("Range", f"bytes={start}-")
            request.add_header("If-Range", validator)
        try:
            answer = urllib.request.urlopen(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            if error.code != 416:
                raise
            error.close()
            self._forget()
            raise ConnectionError("the file on the server has changed") from None
        with answer:
            stated = answer.headers.get("Content-Range", "")
            if answer.status == 206 and stated.startswith(f"bytes {start}-"):
                total = int(stated.rpartition("/")[2]) if stated.rpartition("/")[2].isdigit() else None
            else:
                start = 0
                length = answer.headers.get("Content-Length")
                total = int(length) if length is not None and length.isdigit() else None
                write_json(self.note, {"url": self.url, "validator": _strong_validator(answer.headers)})
            self._receive(answer, start, total)
        if total is not None and self.size != total:
            if self.size > total:
                self._forget()
            raise ConnectionError(f"{self.size} of {total} bytes")

    def _receive(self, answer: Any, start: int, total: int | None) -> None:
        ticks = -(-total // TICK_BYTES) if total else 0
        bar = self.progress.track(range(ticks), ticks, f"fetching {self.part.stem}")
        done, ticked = start, 0
        with closing(cast(Any, bar)), self.part.open("r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in _chunks(answer):
                file.write(chunk)
                done += len(chunk)
                while ticked < done // TICK_BYTES:
                    next(bar, None)
                    ticked += 1
            file.flush()
            os.fsync(file.fileno())

    def _validator(self) -> str | None:
        """Return what makes sure that a resumed file is the one begun."""
        try:
            note = json.loads(self.note.read_text())
            return str(note["validator"]) if note["url"] == self.url and note["validator"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _chunks(answer: Any) -> Iterator[bytes]:
    while chunk := answer.read1(CHUNK_BYTES):
        yield chunk


def _strong_validator(headers: Any) -> str | None:
    tag = headers.get("ETag")
    chosen = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
    return None if chosen is None else str(chosen)


def _is_local(error: Exception) -> bool:
    """Return whether it was the disk, not the network, that failed."""
    network = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException)
    return not isinstance(error, network)


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(getattr(inner, "strerror", None) or inner or type(inner).__name__)


def _check_hash(path: Path, sha256: str | None, url: str) -> None:
    if sha256 is None:
        return
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256.lower():
        if path.suffix == ".part":
            path.unlink()
            path.with_suffix(".part.json").unlink(missing_ok=True)
        raise CatalogFormatError(
            f"the checksum of {path.name} is {found}, not {sha256.lower()}",
            url,
            f"check the checksum, delete {path} if it is right, and fetch again",
        )
