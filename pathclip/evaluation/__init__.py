"""Benchmarks: data and a head -> numbers with intervals, beside what chance and one constant answer give."""

from __future__ import annotations

from pathclip.evaluation.benchmarks import Benchmark, benchmarks
from pathclip.evaluation.config import EvaluateConfig
from pathclip.evaluation.datasets import CaptionedImages, LabelledImages, read_csv, read_folder
from pathclip.evaluation.figure import confusion_png
from pathclip.evaluation.probe import ProbeConfig, probe
from pathclip.evaluation.report import EvaluateReport
from pathclip.evaluation.retrieval import read_shards
from pathclip.evaluation.run import evaluate

__all__ = [
    "Benchmark",
    "CaptionedImages",
    "EvaluateConfig",
    "EvaluateReport",
    "LabelledImages",
    "ProbeConfig",
    "benchmarks",
    "confusion_png",
    "evaluate",
    "probe",
    "read_csv",
    "read_folder",
    "read_shards",
]
