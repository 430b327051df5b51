"""Other people's interfaces; the only place of the library that imports their packages."""
