"""Batch scoring: recordings in, a table with one row for each out. ``run`` drives it.

``inputs`` → ``local``, which does the work → ``ordering`` → ``parts`` → ``output``; ``rows`` and ``schema`` say what
a row is.
"""
