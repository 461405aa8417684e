"""What a model costs and what it did, for people to look at."""
