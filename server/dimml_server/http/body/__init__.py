"""Reading request bodies: limits, multipart forms, callers that disconnect."""
