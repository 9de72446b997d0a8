"""The written table: schema, rows, file formats."""
