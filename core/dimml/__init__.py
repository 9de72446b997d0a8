"""dimml: train detached per-modality encoders and serve them so that answers survive a lost modality.

This package is the contract that training, export, server and clients share. It imports numpy, PyAV,
OpenCV, Pillow, pi-heif, soundfile, soxr, pydantic and typer, and never torch, onnxruntime, FastAPI or gRPC.
"""

__version__ = "0.1.0"
