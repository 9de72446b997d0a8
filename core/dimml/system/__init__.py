"""The operating system's side: files, cores, threads and processes."""
