"""AVDIGITS: ten digits, spoken and written, made offline from pip packages alone (docs/avdigits.md).

Synthetic: eSpeak NG speaks, scikit-learn's real handwritten digits are drawn and moved, PyAV muxes both to MP4.
"""
