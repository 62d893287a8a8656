"""Training the GAN family and measuring what was trained."""
