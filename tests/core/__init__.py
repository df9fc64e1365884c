"""What is true of every object: lifetimes, threads, forks, interrupts, exceptions, memory."""
