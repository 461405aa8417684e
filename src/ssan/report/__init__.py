"""Reports: pages and pictures of what a model did, for people to look at."""
