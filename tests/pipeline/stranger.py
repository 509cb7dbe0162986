"""Another account of this machine, `nobody`, and what it gets at ports and files that are not its own.

A script, started by root: what it imports, that account may not be able to read. It takes a JSON object with
`ports` (host and port of each), `unix` (names of sockets), `files`, `marks`, a folder that all may write to,
and maybe `security`, the certificates of a cluster; it prints what it got.
"""

import asyncio
import http.client
import json
import logging
import os
import pwd
import socket
import ssl
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from distributed import Client
from distributed.core import rpc
from distributed.protocol.pickle import dumps
from distributed.security import Security

PATIENCE_S = 3
REQUESTS = [("GET", path) for path in ("/", "/metrics", "/info/main/workers.html", "/json/identity.json")]
REQUESTS += [(method, "/metrics") for method in ("POST", "PUT", "DELETE")]


class Stranger(Security):
    """Takes every certificate of the other side, and shows what it has."""

    def __init__(self, context):
        super().__init__(require_encryption=context is not None)
        self.context = context

    def get_connection_args(self, role):
        return {
            "ssl_context": self.context,
            "require_encryption": self.context is not None,
            "extra_conn_args": {},
        }


def context(security: Security | None) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if security is not None:
        with tempfile.TemporaryDirectory() as folder:
            pem = Path(folder) / "both.pem"
            pem.write_text(security.tls_client_cert + security.tls_client_key)
            made.load_cert_chain(pem)
    return made


def mark(path: str) -> None:
    """Run where nobody should have it run."""
    with open(path, "w") as file:  # noqa: PTH123 (whatever machine this comes to)
        file.write(str(os.getuid()))


async def submitted(address: str, security: Security, path: str) -> None:
    async with Client(
        address, security=security, asynchronous=True, timeout=PATIENCE_S, set_as_default=False
    ) as client:
        await client.submit(mark, path, pure=False)


async def called(address: str, security: Security, path: str, handler: str) -> None:
    """Scheduler, nanny and worker have handlers that run what they get."""
    arguments = security.get_connection_args("client")
    async with rpc(address, connection_args=arguments, timeout=PATIENCE_S) as other:
        await getattr(other, handler)(function=dumps(mark), args=dumps((path,)))


async def program(ports, marks: str, credentials: dict[str, ssl.SSLContext | None]) -> dict[str, str]:
    """Try to have something run through each port, in every way at once."""
    ways = {}
    for host, port in ports:
        for name, shown in credentials.items():
            address = f"{'tls' if shown else 'tcp'}://[{host}]:{port}".replace("[127.0.0.1]", "127.0.0.1")
            security, way = Stranger(shown), f"{port} {name}"
            for handler in ("run", "run_function"):
                key = f"{way} {handler}"
                ways[key] = called(address, security, f"{marks}/{key}", handler)
            ways[f"{way} submit"] = submitted(address, security, f"{marks}/{way} submit")
    tried = (asyncio.wait_for(way, PATIENCE_S + 2) for way in ways.values())
    got = await asyncio.gather(*tried, return_exceptions=True)
    return {
        way: "ran" if one is None else f"{type(one).__name__}: {one}"
        for way, one in zip(ways, got, strict=True)
    }


def asked(host: str, port: int, method: str, path: str, shown: ssl.SSLContext | None) -> list[object]:
    kind = http.client.HTTPSConnection if shown else http.client.HTTPConnection
    connection = kind(host, port, timeout=PATIENCE_S, **({"context": shown} if shown else {}))
    try:
        connection.request(method, path, body=b"{}" if method != "GET" else None)
        answer = connection.getresponse()
        return [answer.status, answer.read(60).decode(errors="replace")]
    except (OSError, http.client.HTTPException) as error:
        return [0, type(error).__name__]
    finally:
        connection.close()


def joined(name: str) -> str:
    with socket.socket(socket.AF_UNIX) as one:
        try:
            one.connect("\0" + name[1:] if name.startswith("@") else name)
        except OSError as error:
            return type(error).__name__
    return "connected"


def read(name: str) -> str:
    try:
        return (
            str([path.name for path in Path(name).iterdir()])
            if Path(name).is_dir()
            else Path(name).read_text()
        )
    except OSError as error:
        return type(error).__name__


def main() -> None:
    logging.disable(logging.CRITICAL)
    wanted = json.loads(sys.argv[1])
    account = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    credentials = {"tcp": None, "tls": context(None), "tls, own certificate": context(Security.temporary())}
    if "security" in wanted:
        credentials["tls, theirs"] = context(Security(**wanted["security"]))
    asking = [
        (host, port, method, path, shown)
        for host, port in wanted["ports"]
        for method, path in REQUESTS
        for shown in (None, credentials["tls"])
    ]
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda words: asked(*words), asking)
        ran = asyncio.run(program(wanted["ports"], wanted["marks"], credentials))
    http_said = [
        [port, method, path, bool(shown), *said]
        for (_, port, method, path, shown), said in zip(asking, answers, strict=True)
    ]
    unix = {name: joined(name) for name in wanted["unix"]}
    files = {name: read(name) for name in wanted["files"]}
    sys.stdout.write(
        json.dumps({"uid": os.getuid(), "ran": ran, "http": http_said, "unix": unix, "files": files})
    )


if __name__ == "__main__":
    main()
