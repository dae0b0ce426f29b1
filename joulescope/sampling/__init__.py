"""When sensors are read, and the joules between two instants."""
