"""From files to tensors: the only preprocessing outside an encoder's graph."""
