"""A module, an iterable and a loss: fitting one to the other, with an exact position to come back to."""
