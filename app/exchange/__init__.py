"""Who else knows: what carries what the nodes tell each other."""
