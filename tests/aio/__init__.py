"""asyncio on an event base."""
