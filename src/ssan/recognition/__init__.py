"""Action recognition: train a classifier of videos, evaluate it, label videos with it."""
