"""The data of the two papers: synthetic sets, the UCI sets' protocol, and the printed figures."""
