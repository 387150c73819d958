"""One thread for all models of these tests: they are too small for more."""

from collections.abc import Generator

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Generator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
