"""ObjectSlide: an agent pushes an object along a line."""
