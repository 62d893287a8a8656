"""What a seed becomes, and how a pixel is rounded."""
