"""Where encoders and fusion run: ONNX Runtime in this process, or a Triton server."""
