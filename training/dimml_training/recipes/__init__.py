"""Recipes: one file per public data set, each an adapter from the layout it is published in to a manifest.

``dimml make-manifest NAME`` (``command``) calls one; ``table`` checks that every listed file is there and writes the
CSV; ``splitting`` takes a validation split out of training clips where a data set has none.
"""
