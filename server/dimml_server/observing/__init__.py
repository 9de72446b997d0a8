"""What the server says of each request: log lines and spans. Metrics are in ``dimml_server.metrics``."""
