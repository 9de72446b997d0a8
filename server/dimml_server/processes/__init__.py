"""Several serving processes behind one address: their parent, which serves no traffic, and its children."""
