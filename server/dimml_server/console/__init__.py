"""The console: a static page of the server's own, built by ``make console`` from ``server/console``."""
