"""Access control: API keys and TLS, and verification of bundles."""
