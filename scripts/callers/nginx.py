"""nginx in front of the server, in the ways that people set it up: one port for each."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.certificates import Authority

PREFIX = "/tools/dimml"
_START_LIMIT_S = 10.0
#: One server each. nginx's own defaults: HTTP/1.0 to the server, bodies and answers kept until they are whole.
_SERVERS = {
    "as it comes": "location / { proxy_pass http://dimml; }",
    "HTTP/1.1, buffering off": """location / {
        proxy_pass http://dimml; proxy_http_version 1.1; proxy_set_header Connection "";
        proxy_request_buffering off; proxy_buffering off; }""",
    "HTTP/1.0, buffering off": """location / {
        proxy_pass http://dimml; proxy_request_buffering off; proxy_buffering off; }""",
    "headers of an upgrade passed on": """location / {
        proxy_pass http://dimml; proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; }""",
    "prefix kept": f"""location {PREFIX}/ {{ proxy_pass http://dimml; proxy_http_version 1.1; }}""",
    "prefix taken off": f"""location {PREFIX}/ {{ proxy_pass http://dimml/; proxy_http_version 1.1; }}""",
    "TLS": "location / { proxy_pass http://dimml; proxy_http_version 1.1; }",
    "TLS, HTTP/2": """location / { proxy_pass http://dimml; proxy_http_version 1.1; proxy_request_buffering off; }""",
    "gRPC": "location / { grpc_pass grpc://dimml_grpc; }",
}


@dataclass(frozen=True)
class Front:
    """One way through nginx: ``address`` is ``host:port``, ``path`` comes before every path."""

    name: str
    address: str
    path: str = ""
    ca: Path | None = None
    grpc: bool = False


@contextmanager
def nginx_before(folder: Path, http: str, grpc: str) -> Iterator[dict[str, Front]]:
    """Every front by its name, until the block ends; ``folder`` is for nginx alone."""
    pair = (authority := Authority(folder)).sign("front")
    servers, fronts = [], {}
    for name, location in _SERVERS.items():
        port = _free_port()
        tls, http2 = name.startswith("TLS"), "HTTP/2" in name or name == "gRPC"
        options = " ssl" * tls + " http2" * http2
        certificate = f"ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key};" if tls else ""
        servers.append(f"server {{ listen 127.0.0.1:{port}{options}; {certificate} {location} }}")
        path = PREFIX if name.startswith("prefix") else ""
        fronts[name] = Front(name, f"127.0.0.1:{port}", path, authority.ca if tls else None, name == "gRPC")
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Its workers would else be another user, whom the folder is closed to.
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(f"""
{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors.log;
events {{}}
http {{
    access_log off; {temporary}
    client_max_body_size 0;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    upstream dimml {{ server {http}; keepalive 8; }}
    upstream dimml_grpc {{ server {grpc}; }}
    {chr(10).join(servers)}
}}
""")
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(configuration), "-e", f"{folder}/errors.log"])
    try:
        for front in fronts.values():
            _wait_for(front.address, process, folder / "errors.log")
        yield fronts
    finally:
        process.terminate()
        process.wait()


def installed() -> bool:
    return shutil.which("nginx") is not None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, _, port = address.rpartition(":")
    until = time.monotonic() + _START_LIMIT_S
    while True:
        try:
            socket.create_connection((host, int(port))).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise OSError(f"nginx does not listen: {log.read_text() if log.exists() else ''}") from None
            time.sleep(0.05)
        else:
            return
