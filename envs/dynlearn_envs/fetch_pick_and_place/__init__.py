"""FetchPickAndPlace as gymnasium-robotics ships it, for planners."""
