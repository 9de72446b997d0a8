"""Image files: their sizes by their headers, and their pixels."""
