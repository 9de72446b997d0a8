"""Control of the bundles a server serves: the repository calls, and loading whole bundles with them."""
