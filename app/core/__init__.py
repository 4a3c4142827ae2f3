"""The ground floor: values and the window. No I/O, no clock, no asyncio; time comes in as an argument."""
