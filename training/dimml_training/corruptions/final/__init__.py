"""The final corruption families: sealed by ``sealed.sha256`` before any method was changed, scored once, at the end.

Written apart from the seen and the development families: nothing of ``corruptions.sound`` or ``corruptions.picture`` is
used. No training and no choice of a fusion may import this room (``scripts/import_graph.py``).
"""
