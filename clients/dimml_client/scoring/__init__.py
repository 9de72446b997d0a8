"""Batch scoring: recordings in, a table with one row for each out. ``run`` drives it, an engine does the work.

``inputs`` → an engine (``local``, ``remote``, ``on_ray``) → ``ordering`` → ``output``; ``rows`` and ``schema`` say
what a row is, whichever engine made it.
"""
