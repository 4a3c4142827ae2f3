"""What the service is measured beside: servers for the same job, and for no job at all."""
