"""How many flows a second the player re-enacts on time, beside others that do the same exchange in the same network."""
