"""Heads on frozen features: what a network that was trained elsewhere knows of one's own classes."""
