"""Predictions in this process, without a server: the only module of `dimml_server` that clients may import."""

from dimml_server.local.batch import LocalBundle, PredictionResult
from dimml_server.local.predictor import LocalPredictor

__all__ = ["LocalBundle", "LocalPredictor", "PredictionResult"]
