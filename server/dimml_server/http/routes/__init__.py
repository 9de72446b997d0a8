"""The HTTP routes other than KServe's."""
