"""Hyper-parameter search from W&B's sweep files, without W&B."""
