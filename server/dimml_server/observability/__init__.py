"""Metrics, access log, traces and log format."""
