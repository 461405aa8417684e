"""The command line: one file a verb; nothing heavy is imported until a verb runs."""
