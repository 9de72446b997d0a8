"""Training of detached encoders: data, models, the two stages, evaluation."""
