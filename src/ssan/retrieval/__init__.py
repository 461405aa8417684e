"""Text-to-video retrieval: captions and features of videos in one space, where what belongs together lies near."""
