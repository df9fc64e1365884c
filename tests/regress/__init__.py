"""libevent's own tests, each under the name that it has there."""

#: How far the coarse clock that libevent's timers read may lag behind the real one, in seconds.
TICK = 0.02
