"""The table that is written: schema, rows, file formats."""
