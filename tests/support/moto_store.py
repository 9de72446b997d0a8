"""Run as a program of its own, with moto and what it needs on PYTHONPATH: an S3 store over TLS that checks signatures.

Usage: ``python moto_store.py CERTIFICATE KEY FILE``. Serves the file as ``s3://clips/OBJECT``, for one user who may
read that bucket, and prints port, access key and secret key on a line as JSON. Ends when stdin does.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
from pathlib import Path

#: What must be encoded in a key, and what must not be.
OBJECT = "a b/ä+c~(1)?#%20.mp4"
REGION = "eu-central-1"


def main() -> None:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.core.authorization import enable_iam_authentication
    from moto.iam.models import iam_backends
    from moto.s3.models import s3_backends
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    certificate, key, file = sys.argv[1:]
    store, identity = s3_backends[DEFAULT_ACCOUNT_ID]["aws"], iam_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for bucket in ("clips", "others"):
        store.create_bucket(bucket, REGION)
        store.put_object(bucket, OBJECT, Path(file).read_bytes())
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::clips/*"}
    identity.create_user(REGION, "reader")
    identity.put_user_policy("reader", "read", json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    made = identity.create_access_key("reader")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, ssl_context=context)
    # With this, moto computes each request's signature anew, by botocore, and compares.
    with enable_iam_authentication():
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(json.dumps([server.port, made.access_key_id, made.secret_access_key]), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
