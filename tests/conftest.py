"""One hypothesis profile for all tests: the same examples in every run, no deadline on a loaded machine."""

import os
import signal

# several workers share the cores already; OpenMP and BLAS read these when they are first imported
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

from hypothesis import settings

# a shell starts background jobs with SIGINT ignored, and children inherit that; the tests send it on purpose
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("quadmix", derandomize=True, deadline=None)
settings.load_profile("quadmix")
