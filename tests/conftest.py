"""One hypothesis profile for all tests: the same examples in every run, no deadline on a loaded machine."""

import signal

from hypothesis import settings

# a shell starts background jobs with SIGINT ignored, and children inherit that; the tests send it on purpose
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("quadmix", derandomize=True, deadline=None)
settings.load_profile("quadmix")
