"""Published pathology CLIPs: where they are, under which terms, and whether `load` reads them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KNOWN_MODELS", "KnownModel"]


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A published model.

    Attributes:
        name: Hub name, to be given to `pathclip.load`.
        format: How its files are laid out.
        licence: Of the weights, as its page says.
        access: ``"open"`` or ``"gated"`` (an account and the owner's consent).
        status: ``"supported"``: on random weights, features of this format equal the reference
            implementation's to 1e-5. ``"unverified"``: not compared. ``"refused"``: `load` says why.
        note: What else to know.
    """

    name: str
    format: str
    licence: str
    access: str
    status: str
    note: str = ""


KNOWN_MODELS: tuple[KnownModel, ...] = (
    KnownModel(
        "vinid/plip",
        "Hugging Face CLIPModel",
        "not stated; card: research only",
        "open",
        "supported",
        "ViT-B/32",
    ),
    KnownModel(
        "wisdomik/QuiltNet-B-32",
        "open_clip folder",
        "MIT",
        "open",
        "supported",
        "its config does not state quick_gelu",
    ),
    KnownModel(
        "wisdomik/QuiltNet-B-16",
        "open_clip folder",
        "MIT",
        "open",
        "supported",
        "its config does not state quick_gelu",
    ),
    KnownModel(
        "openai/clip-vit-base-patch32", "Hugging Face CLIPModel", "MIT", "open", "supported", "not pathology"
    ),
    KnownModel(
        "wisdomik/QuiltNet-B-16-PMB",
        "open_clip folder, BERT text tower",
        "MIT",
        "open",
        "supported",
        "needs pathclip[hf]",
    ),
    KnownModel(
        "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        "open_clip folder, BERT text tower",
        "MIT",
        "open",
        "supported",
        "needs pathclip[hf]; not pathology alone",
    ),
    KnownModel("Astaxanthin/KEEP", "KEEP", "MIT", "open", "supported", "needs pathclip[hf]"),
    KnownModel(
        "MahmoodLab/CONCH",
        "CONCH",
        "CC-BY-NC-ND 4.0",
        "gated",
        "supported",
        "texts need pathclip[hf] and conch_byte_level_bpe_uncased.json from github.com/mahmoodlab/CONCH",
    ),
    KnownModel(
        "xiangjx/musk",
        "MUSK",
        "CC-BY-NC-ND 4.0",
        "gated",
        "supported",
        "texts need pathclip[hf] and tokenizer.spm from github.com/lilab-stanford/MUSK",
    ),
    KnownModel(
        "MahmoodLab/conchv1_5",
        "CONCH v1.5, image tower alone",
        "CC-BY-NC-ND 4.0",
        "gated",
        "refused",
        "its text side is part of TITAN",
    ),
)
