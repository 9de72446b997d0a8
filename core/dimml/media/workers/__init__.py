"""Worker processes that decode: the pool, its supervisors, and the protocol between parent and worker."""
