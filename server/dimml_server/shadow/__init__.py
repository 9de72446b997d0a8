"""Shadow versions: their predictions are compared with the answers of other versions, and never sent."""
