"""Where recordings are scored: this process, a server, or Ray."""
