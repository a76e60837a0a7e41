"""Predictions in Python and on the command line, with a stored model or a server. Never imports TensorFlow."""
