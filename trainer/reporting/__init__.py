"""Metrics of a model, and what is shown of them: figures, verdict and advice, report page."""
