"""Run folders: their checkpoints, tracking, publishing and listing."""
