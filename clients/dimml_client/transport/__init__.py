"""HTTP and gRPC to a dimml server: connections, retries, credentials, errors."""
