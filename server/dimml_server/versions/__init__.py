"""Bundle versions: registry, loading and unloading, traffic split."""
