"""The method of the paper: detached encoders, dimension separation, DUC, and the fused head."""
