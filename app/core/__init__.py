"""The ground floor: values and the window. No I/O, clock or asyncio; time comes in as an argument."""
