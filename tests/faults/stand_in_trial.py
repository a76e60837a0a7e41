#!/usr/bin/env python3
"""Replaces `python -m trainer.sweep.trial`: two epochs and a result, and no file."""

import json
import sys

ACCURACY = 0.5 if "--dataset=builtin:digits" in sys.argv else 0.75
for epoch in (1, 2):
    print(json.dumps({"event": "epoch", "epoch": epoch, "epochs": 2, "val_accuracy": ACCURACY * epoch / 2}))
print(json.dumps({"val_accuracy": ACCURACY}))
