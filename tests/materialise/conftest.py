"""Fixtures of the room: a run folder ready to be materialised, and one with another mixture."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from materialise_run import SIZE, THETA, Run, build_run, documents, write_inputs


@pytest.fixture
def run(tmp_path: Path) -> Run:
    docs = documents(SIZE)
    return build_run(tmp_path / "run", write_inputs(tmp_path / "in", docs), docs)


@pytest.fixture
def double(run: Run, tmp_path: Path) -> Run:
    """The same pool with another mixture, in another folder."""
    theta = dataclasses.replace(THETA, cutoff=np.array([0.1, 0.9, 0.3]))
    return build_run(tmp_path / "double", [f.path for f in run.corpus.files], run.docs, theta=theta)
