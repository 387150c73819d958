"""The stages in order, the run folder, identity, progress, plan and resume."""
