"""Episodes on disk, and the transitions cut from them; numpy and Arrow, no torch."""
