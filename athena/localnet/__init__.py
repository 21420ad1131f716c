"""A whole network on one machine: the ground it stands on, its processes, and the demo that runs them."""
