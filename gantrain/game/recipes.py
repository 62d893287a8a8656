"""The recipes that ganpipe ships; light, so that a shell may complete their names."""

from pathlib import Path


def shipped_recipes() -> dict[str, Path]:
    """Recipe name -> file: in the installed package, or in a source checkout."""
    package = Path(__file__).parents[1]
    folders = (package / "configs", package.parent / "configs")
    return {p.stem: p for folder in folders for p in sorted(folder.glob("*.toml"))}
