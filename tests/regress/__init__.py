"""libevent's own tests, each under the name that it has there."""
