"""Whole slides: open, find tissue, tile, encode, pool, and show what came out."""

from __future__ import annotations

from pathclip.slides.classify import classify_slide, embed, rescore
from pathclip.slides.config import SegmentConfig, SlideConfig
from pathclip.slides.draws import judge_draws
from pathclip.slides.features import SlideFeatures, read_features, write_features
from pathclip.slides.folder import SlideRecord
from pathclip.slides.info import SlideInfo, slide_info
from pathclip.slides.inputs import SlideInput, read_inputs
from pathclip.slides.job import SlideRun, run_slides
from pathclip.slides.mpp import Mpp, resolve_mpp
from pathclip.slides.pool import pool_top_k
from pathclip.slides.prediction import SlidePrediction
from pathclip.slides.segment import Segment, judge_segment, read_annotation, segment_slide
from pathclip.slides.slide import Level, Slide, UnreadableRegion, open_slide
from pathclip.slides.tiling import TilePlan, plan_tiles
from pathclip.slides.tissue import Tissue, find_tissue, tissue_mask
from pathclip.slides.view import DeepZoom, Viewer

__all__ = [
    "DeepZoom",
    "Level",
    "Mpp",
    "Segment",
    "SegmentConfig",
    "Slide",
    "SlideConfig",
    "SlideFeatures",
    "SlideInfo",
    "SlideInput",
    "SlidePrediction",
    "SlideRecord",
    "SlideRun",
    "TilePlan",
    "Tissue",
    "UnreadableRegion",
    "Viewer",
    "classify_slide",
    "embed",
    "find_tissue",
    "judge_draws",
    "judge_segment",
    "open_slide",
    "plan_tiles",
    "pool_top_k",
    "read_annotation",
    "read_features",
    "read_inputs",
    "rescore",
    "resolve_mpp",
    "run_slides",
    "segment_slide",
    "slide_info",
    "tissue_mask",
    "write_features",
]
