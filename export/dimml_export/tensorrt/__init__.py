"""TensorRT: by configuration as a provider of ONNX Runtime, or as plans built on the host that serves them."""
