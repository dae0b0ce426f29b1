"""A simulated GPU and engine with known truth, for the demo, tests and benchmarks."""
