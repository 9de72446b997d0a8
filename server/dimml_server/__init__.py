"""The embedded server: HTTP, gRPC, the local engine, metrics."""
