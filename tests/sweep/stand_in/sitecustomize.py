"""On PYTHONPATH, the program that STAND_IN names takes the place of Python where a trial is started."""

import os
import sys

sys.executable = os.environ.get("STAND_IN") or sys.executable
