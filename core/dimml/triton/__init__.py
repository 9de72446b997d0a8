"""Entry models of a bundle inside Triton's Python backend, on the same ensemble as the server.

Nothing here runs elsewhere: ``triton_python_backend_utils`` exists only in Triton's own processes, and is imported only
when Triton initialises a model.
"""
