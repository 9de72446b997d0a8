"""Parts of ``benchmarks/compare_checkouts.py``: what users see of a checkout, and what a request costs it."""
