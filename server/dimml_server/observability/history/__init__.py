"""The last hour of the server's own metrics, and the alerts that they would raise, for ``GET /v1/now``."""
