"""Files and folders, written whole."""
