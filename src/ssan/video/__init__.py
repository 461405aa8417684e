"""Files and pixels: reading videos, choosing frames, cutting and turning them; no labels, no networks."""
