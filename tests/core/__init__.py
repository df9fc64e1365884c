"""What holds for every object: lifetimes, threads, forks, interrupts, exceptions, memory."""
