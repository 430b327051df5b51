"""What we measure ourselves against; its packages are those of ``requirements.txt`` here."""
