"""Work that many machines share: what is to be done goes out, small results come back."""
