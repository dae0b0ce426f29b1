"""The sampler inside the engine's container: reads GPUs where the sidecar cannot.

A process of its own (``python -m joulescope.inside``), started by the hook when the sidecar asks. It needs
what vLLM brings, msgspec and a ``pynvml``, and lives for one connection: it ends when the sidecar hangs up or
goes, when the engine ends, and when the driver does not answer. Whoever asks again gets a new one, so that
nothing here has to be remembered.
"""
