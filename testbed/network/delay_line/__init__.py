"""A user-space delay line for kernels without netem: sinks, rings, fates and one process that releases frames."""
