"""KServe v2 (Open Inference Protocol) over HTTP and gRPC, worded and numbered as Triton does it.

``dataplane`` is the core, independent of any transport; ``http`` and ``grpc`` only translate. ``docs/kserve.md`` lists
the calls.
"""
