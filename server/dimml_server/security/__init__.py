"""Who may come in: API keys, TLS, and what must stand in the settings for them."""
