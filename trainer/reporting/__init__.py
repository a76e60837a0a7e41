"""What is measured and shown of a model: metrics, figures, the report."""
