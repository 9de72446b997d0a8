"""KServe v2 (Open Inference Protocol) over HTTP and gRPC, worded and numbered as Triton does it.

``inference`` is the transport-free core; ``http`` and ``grpc`` only translate. ``docs/kserve.md`` lists the calls.
"""
