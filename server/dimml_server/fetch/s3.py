"""Signing of requests to S3 (AWS Signature Version 4). Imported only if ``media_url_buckets`` is set.

The signature is made by AWS's own library from the key of the settings; nothing else is looked for.
"""

from __future__ import annotations

from collections.abc import Mapping

from dimml.errors import ConfigurationError
from dimml.system.installation import install_command
from dimml_server.fetch.targets import Target
from dimml_server.settings.media_url import Bucket

try:
    from awscrt import auth, http
except ModuleNotFoundError as error:
    raise ConfigurationError(
        f"media_url_buckets needs {error.name}, which is not installed: {install_command('fetch-s3')}",
        field="media_url_buckets",
    ) from error

#: Nothing waits for a network: the key is at hand.
_SIGN_S = 5.0


class Signer:
    """Signs requests with the keys of the buckets, which are read once. Raises ConfigurationError."""

    def __init__(self, buckets: Mapping[str, Bucket]) -> None:
        self._regions = {name: bucket.region for name, bucket in buckets.items()}
        self._keys = {
            name: auth.AwsCredentialsProvider.new_static(bucket.access_key, bucket.secret())
            for name, bucket in buckets.items()
        }

    def headers(self, target: Target) -> dict[str, str]:
        """Sign a GET; return the headers to send, ``Host`` among them. None for a target that is in no bucket."""
        bucket = target.bucket
        if bucket is None:
            return {}
        request = http.HttpRequest("GET", target.path, http.HttpHeaders([("Host", str(target.origin))]))
        config = auth.AwsSigningConfig(
            algorithm=auth.AwsSigningAlgorithm.V4,
            signature_type=auth.AwsSignatureType.HTTP_REQUEST_HEADERS,
            credentials_provider=self._keys[bucket],
            region=self._regions[bucket],
            service="s3",
            # S3 takes a key as it is written: unlike other services it encodes once, and keeps double slashes.
            use_double_uri_encode=False,
            should_normalize_uri_path=False,
            signed_body_value=auth.AwsSignedBodyValue.EMPTY_SHA256,
            signed_body_header_type=auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
        )
        return dict(auth.aws_sign_request(request, config).result(_SIGN_S).headers)
