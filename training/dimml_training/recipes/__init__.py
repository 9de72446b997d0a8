"""Recipes: one file per public data set, each listing its published layout as a clip table.

``dimml make-manifest NAME`` calls one; ``table`` checks that every listed file exists and writes the CSV; ``splitting``
takes a validation split out of the training clips of data sets that have none.
"""
