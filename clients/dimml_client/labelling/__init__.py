"""Labels for recordings that were scored: which are worth one, tasks for Label Studio, and its export as a clip table.

``candidates`` reads a score table, ``choosing`` picks from it, ``selection`` is the record of what was picked and why,
``tasks`` writes it for Label Studio, ``annotations`` reads and checks what comes back, ``clip_table`` writes that for
training.
"""
