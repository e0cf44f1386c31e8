"""The stages of the pipeline: each module here is one stage of dvc.yaml and is named after a verb."""

import os
import signal
import sys
from types import FrameType

# ONNX Runtime reports its use to its maker unless told otherwise before it is imported; recordings are private.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)


# While `python -m stages.NAME` imports what it needs, for seconds, Ctrl-C ends it at once: there is nothing to clear away,
# and an exception may be lost in an import. `run_command` takes over. Python calls the program -m until it has found it.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
