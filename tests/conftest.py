"""One hypothesis profile for all tests: the same examples in every run, no deadline on a loaded machine."""

from hypothesis import settings

settings.register_profile("quadmix", derandomize=True, deadline=None)
settings.load_profile("quadmix")
