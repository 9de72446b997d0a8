"""Which bundles a server serves: the repository calls, and loading whole bundles by them."""
