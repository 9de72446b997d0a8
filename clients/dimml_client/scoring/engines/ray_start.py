"""Start of Ray on this machine without queries to cloud services. Imports Ray only when called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cloud_not_asked() -> Iterator[None]:
    """Keep a cluster that ``ray.init`` starts here from asking three clouds' metadata services where it runs.

    Even without a dashboard, Ray 2.60 starts the dashboard's process, for its usage reporter alone. That process
    queries 169.254.169.254 and metadata.google.internal before it checks whether reporting is off
    (``UsageStatsHead.run``), and no setting stops it, so the process is not started, unless the user has switched usage
    statistics on.
    """
    if os.environ.get("RAY_USAGE_STATS_ENABLED") != "0":
        yield
        return
    from ray._private import services

    start = services.start_api_server
    # The values Ray continues with if that process cannot be started: no address and no process.
    services.start_api_server = lambda *_args, **_kwargs: (None, None)
    try:
        yield
    finally:
        services.start_api_server = start
