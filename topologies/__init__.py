"""What should exist: networks as frozen values, and the lab folders they are read from.

This package builds nothing and knows neither the shadow, nor traffic, nor statistics.
"""
