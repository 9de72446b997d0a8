"""Proxies that environment variables name: httpx and gRPC use them unasked, for addresses of this machine too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import proxy_bypass


def proxy_hint(url: str, environment: Mapping[str, str] | None = None) -> str:
    """Name the variable whose proxy connections to ``url`` go through, to append to a message; empty if none does.

    httpx reads names in either case, gRPC those in lower case alone.
    """
    variables = os.environ if environment is None else environment
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme in ("grpc", "grpcs"):
        names = ["grpc_proxy", "https_proxy", "http_proxy"]
        exempting = ("no_grpc_proxy", "no_proxy")
    else:
        lower = (f"{parts.scheme}_proxy", "all_proxy")
        names = [form for name in lower for form in (name, name.upper())]
        exempting = ("no_proxy", "NO_PROXY")
    variable = next((name for name in names if variables.get(name)), None)
    exempt = next((variables[name] for name in exempting if variables.get(name)), "")
    if variable is None or proxy_bypass(host, {"no": exempt}):
        return ""
    # Without its user and password.
    proxy = variables[variable].rpartition("@")[2]
    return f"; it goes through the proxy {proxy} of {variable}, unless {exempting[-1]} names {host}"
