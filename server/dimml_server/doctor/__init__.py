"""``dimml doctor``: find what would keep a server from starting, or from staying up, before it is started."""
