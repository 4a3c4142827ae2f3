"""The command line, one file a verb. A verb reads the settings it needs and returns an exit status."""
