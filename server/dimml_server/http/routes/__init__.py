"""The HTTP routes beside KServe's."""
