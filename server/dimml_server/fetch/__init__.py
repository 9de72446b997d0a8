"""Recordings that a request names by a URL, fetched from the hosts and buckets that the settings allow."""
