"""The game of two networks: its parts, its recipe, its losses."""
