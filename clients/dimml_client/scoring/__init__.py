"""Batch scoring: reads recordings, writes a table with one row for each. ``run`` drives it, an engine does the work.

``inputs`` → an engine of ``engines`` → ``run.reorder_buffer`` → ``table.formats``; ``table.rows`` and ``table.schema``
define what a row is, whichever engine made it.
"""
