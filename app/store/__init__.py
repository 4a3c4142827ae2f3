"""What is kept. A store knows rows and durability; it knows no window, no HTTP and no other store."""
