"""What several benchmarks share: pinned servers, load over HTTP, processor time and memory, ratios with intervals."""
