"""Text-to-video retrieval (sections 4.2 and 4.4): features, text, the joint space, its training and evaluation."""
