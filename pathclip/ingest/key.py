"""The key of a dataset's ids: made once, readable by its owner only, or brought along."""

from __future__ import annotations

import hmac
import logging
import os
import secrets
from pathlib import Path

from pathclip.core.errors import FaultError, UserError

__all__ = ["fingerprint", "load_key"]

log = logging.getLogger("pathclip")
KEY_BYTES = 32
SAFE_BYTES = 16


def load_key(private: Path, key_file: Path | None) -> bytes:
    """The key in ``key_file``, else the one in ``private/key``, else a new one kept there.

    Raises:
        UserError: If the named file is missing, unreadable or empty.
    """
    if key_file is not None:
        return _read(key_file)
    own = private / "key"
    if own.is_file():
        return _read(own)
    key = secrets.token_bytes(KEY_BYTES)
    try:
        private.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(own, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as handle:
            handle.write(key)
    except OSError as error:
        raise FaultError(f"cannot write {own}: {error.strerror}") from error
    return key


def fingerprint(key: bytes) -> str:
    """Tells keys apart without telling the key."""
    return hmac.new(key, b"pathclip key fingerprint", "sha256").hexdigest()[:16]


def _read(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"key file {path} does not exist; make one with: head -c 32 /dev/urandom > {path}"
        ) from None
    except OSError as error:
        raise UserError(f"key file {path} cannot be read: {error.strerror}") from None
    if not key.strip():
        raise UserError(f"key file {path} is empty; make one with: head -c 32 /dev/urandom > {path}")
    if len(key) < SAFE_BYTES:
        log.warning("key file %s holds %d bytes; ids under a short key can be guessed", path, len(key))
    return key
