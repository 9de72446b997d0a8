"""dimml's own HTTP API; KServe v2 stands in ``dimml_server.kserve``."""
