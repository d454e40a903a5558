"""Search, profiles, long recordings and alignment."""
