"""On PYTHONPATH: trials run the program in the variable STAND_IN instead of Python."""

import os
import sys

sys.executable = os.environ.get("STAND_IN") or sys.executable
