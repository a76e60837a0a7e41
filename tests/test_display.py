from __future__ import annotations

import os
import signal

import pytest

from trainer.config import Interrupted
from trainer.display import TrainingDisplay


def test_signals_wait_only_while_deferred() -> None:
    with TrainingDisplay() as display:
        with display.defer_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Interrupted) as caught:
                display.check_interrupted()
        assert caught.value.exit_code == 143
        with pytest.raises(Interrupted) as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
