"""Predictions in this process, without a server: the one door of `dimml_server` for clients."""

from dimml_server.local.batch import Fate, LocalBundle
from dimml_server.local.predictor import LocalPredictor

__all__ = ["Fate", "LocalBundle", "LocalPredictor"]
