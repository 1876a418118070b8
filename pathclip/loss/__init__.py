"""Features -> scalar: the contrastive loss, plain or in chunks, on one process or many."""

from pathclip.loss.contrastive import ContrastiveLoss, LossConfig, contrastive_loss

__all__ = ["ContrastiveLoss", "LossConfig", "contrastive_loss"]
