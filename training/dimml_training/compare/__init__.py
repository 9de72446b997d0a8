"""``dimml compare``: train the methods of a comparison, score them on the same corrupted clips, tabulate and plot.

Methods that share a training are trained once; every method and repeat leaves one small JSON, its cell.
"""
