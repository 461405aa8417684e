"""The tables of the SSAN paper, trained and evaluated with one command, and the pages about them."""
