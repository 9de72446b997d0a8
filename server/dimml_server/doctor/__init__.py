"""``dimml doctor``: what would keep a server from starting, or from staying up, found before it starts."""
