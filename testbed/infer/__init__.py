"""A first lab out of traffic alone. Pure but for `lab`, which writes it; knows the leaves, no shadow and no device."""
