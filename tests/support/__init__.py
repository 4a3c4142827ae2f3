"""What the tests run against: the real service, in a process or in a thread, on a real socket."""
