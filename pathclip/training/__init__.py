"""Batches + encoders + loss -> weights: the config, the step, the run folder, exact resume."""

from pathclip.training.config import TrainConfig
from pathclip.training.folder import load_run_config
from pathclip.training.run import TrainResult, train
from pathclip.training.watch import draw_curves, read_metrics

__all__ = ["TrainConfig", "TrainResult", "draw_curves", "load_run_config", "read_metrics", "train"]
