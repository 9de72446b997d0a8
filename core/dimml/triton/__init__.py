"""What runs inside Triton's Python backend: the entry models of a bundle, over the same ensemble as everywhere.

Nothing here is of use outside: ``triton_python_backend_utils`` exists only in Triton's own processes, and is imported
there and nowhere else.
"""
