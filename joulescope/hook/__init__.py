"""The guest inside vLLM's processes. Importing it imports nothing but the standard library."""
