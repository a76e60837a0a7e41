"""Fit, sweep, serve and ship image classifiers."""

import os

# Read by TensorFlow when it is imported. Without AVX512 it leaves oneDNN off by default, though training is
# about twice as fast with it; its start-up chatter would drown the lines that matter.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
