"""What is learned: networks, scalers, and the models made of them."""
