"""Shard -> Batch: order, decode, augment, tokenise, resume state."""

from pathclip.batches.batch import Batch, caption_id, stable_id
from pathclip.batches.config import AugmentConfig, BatchConfig
from pathclip.batches.decode import BadImageError, decode_crop
from pathclip.batches.features import FeatureStore
from pathclip.batches.loader import ShardLoader
from pathclip.batches.order import Order
from pathclip.batches.source import OwnPictures
from pathclip.batches.stage import staged
from pathclip.batches.windowed import WindowedOrder

__all__ = [
    "AugmentConfig",
    "BadImageError",
    "Batch",
    "BatchConfig",
    "FeatureStore",
    "Order",
    "OwnPictures",
    "ShardLoader",
    "WindowedOrder",
    "caption_id",
    "decode_crop",
    "stable_id",
    "staged",
]
