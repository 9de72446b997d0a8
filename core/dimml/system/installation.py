"""How this installation of dimml came here, so that messages name a command that works."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from urllib.parse import unquote, urlparse

PACKAGE = "dimml"


def install_command(extras: str) -> str:
    """Return the pip command that adds extras, comma separated, to this installation.

    A checkout, a wheel or a commit of a version control system is named by where it was installed from, as PEP 610
    records it in ``direct_url.json``: an index may have no dimml. Of a branch or tag it is the commit that was
    installed, since the branch may have moved on.
    """
    try:
        recorded = distribution(PACKAGE).read_text("direct_url.json")
    except PackageNotFoundError:
        recorded = None
    origin = json.loads(recorded) if recorded else {}
    url = str(origin.get("url", ""))
    if not url:
        return f"pip install '{PACKAGE}[{extras}]'"
    if "dir_info" in origin:
        place = shlex.quote(f"{unquote(urlparse(url).path)}[{extras}]")
        return f"pip install {'-e ' if origin['dir_info'].get('editable') else ''}{place}"
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    if origin.get("subdirectory"):
        url += f"#subdirectory={origin['subdirectory']}"
    return f"pip install {shlex.quote(f'{PACKAGE}[{extras}] @ {url}')}"
