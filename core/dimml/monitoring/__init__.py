"""Monitoring of a server's traffic, independent of any metrics library.

``observation``: what is recorded of one answered row; ``reference``: distributions on validation data; ``drift``: the
distance of traffic from them.
"""
