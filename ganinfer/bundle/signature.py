"""Signatures of manifests: Ed25519 (RFC 8032), with keys in PEM files as openssl writes them.

manifest.sig is one line: the 64 bytes that sign manifest.json's, in base64.
"""

import base64
import binascii
import os
from collections.abc import Callable
from pathlib import Path

from ganinfer.errors import ConfigError, ConfigNotFound, missing_extra
from ganinfer.files import write_atomic

SIGNATURE = "manifest.sig"
SIGNATURE_BYTES = 89  # of that file: 64 in base64, and the end of the line

PublicKey = str | bytes | os.PathLike[str]  # PEM, or the path of such a file
Sign = Callable[[bytes], bytes]  # manifest.json -> manifest.sig
Check = Callable[[bytes, bytes], bool]  # manifest.json, manifest.sig -> are they a pair?


def well_formed(line: bytes) -> bool:
    """Can this be a manifest.sig? Whose, and of which manifest, only `open_public_key` tells."""
    try:
        raw = base64.b64decode(line.removesuffix(b"\n"), validate=True)
    except binascii.Error:
        return False
    return len(raw) == 64 and line == _line(raw)


def make_keys(path: Path) -> Path:
    """Make a pair of keys: the private one at `path`, for its owner's eyes alone.

    Returns:
        Where the public one is: beside it, name.pub.pem.

    Raises:
        ConfigError: one of the two is there already.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            PublicFormat,
        )
    except ModuleNotFoundError as error:
        raise missing_extra("cryptography", error) from None
    public = path.with_suffix(".pub.pem")
    if taken := [file for file in (path, public) if file.exists()]:
        raise ConfigError(f"{taken[0]}: exists, and a key is never replaced; choose another name")
    key = Ed25519PrivateKey.generate()
    # Not aside: the file must never be readable by others, nor replace one that came meanwhile.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_atomic(
        public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return public


def open_private_key(path: Path) -> Sign:
    """Read the key that signs.

    Raises:
        ConfigError: it is no Ed25519 private key in PEM, or one under a password.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ModuleNotFoundError as error:
        raise missing_extra("cryptography", error) from None
    data = _read(path)
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise ConfigError(
            f"{path}: a key under a password; take that off in a copy:"
            f" openssl pkey -in {path} -out plain.pem"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            f"{path}: no private key in PEM; make a pair with: gan keygen signing.pem"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _foreign(str(path), key)
    return lambda manifest: _line(key.sign(manifest))


def open_public_key(given: PublicKey) -> Check:
    """Read the key that signatures are checked with.

    Args:
        given: PEM (text or bytes), or the path of such a file.

    Raises:
        ConfigError: it is no Ed25519 public key in PEM.
    """
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ModuleNotFoundError as error:
        raise missing_extra("cryptography", error) from None
    where, data = _pem(given)
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            f"{where}: no public key in PEM; give the signing.pub.pem of: gan keygen signing.pem"
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise _foreign(where, key)

    def check(manifest: bytes, line: bytes) -> bool:
        try:
            key.verify(base64.b64decode(line), manifest)
        except InvalidSignature:
            return False
        return True

    return check


def _line(raw: bytes) -> bytes:
    return base64.b64encode(raw) + b"\n"


def _pem(given: PublicKey) -> tuple[str, bytes]:
    """What to call a key in an error, and its PEM."""
    if isinstance(given, str) and given.lstrip().startswith("-----BEGIN"):
        given = given.encode()
    if isinstance(given, bytes):
        return "public_key", given
    return os.fspath(given), _read(Path(given))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        kind = ConfigNotFound if isinstance(error, FileNotFoundError) else ConfigError
        raise kind(f"{path}: the key cannot be read ({error.strerror})") from None


def _foreign(where: str, key: object) -> ConfigError:
    kind = type(key).__name__.removeprefix("_").removesuffix("Key")
    return ConfigError(f"{where}: found {kind}; expected Ed25519, as gan keygen makes it")
