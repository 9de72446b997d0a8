"""TensorRT: the provider of ONNX Runtime by configuration, and plans built on the host that serves them."""
