"""Helpers close to the operating system: files, cores, threads and processes."""
