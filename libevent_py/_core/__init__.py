"""The machine that the nouns stand on: who owns a C object, who frees it, and how C calls Python.

In C, a program frees a ``struct event`` once, after its last use and before its base, or it
crashes. In Python nobody can promise that: objects are dropped at any moment, collected in any
order, closed in their own callbacks, inherited by a forked child and used from another thread. This
package makes each of these either work or raise an exception. The nouns (`event`, `buffer`,
`bufferevent`, `http` and so on) say only what is theirs: how their C object is made and freed, and
when C may call it.

There are four questions, and each has one answer.

*Is the C object still there?* Its pointer is in the slot `Handle.pointer`. A closed object has an
empty slot, and its class has changed to one whose ``pointer`` raises `ClosedError`. Every call to C
needs the pointer, so no call can forget to ask. See `handle`.

*Whom does C call?* C never holds a reference to a Python object. It holds a key, a number that is
never used again. When C calls back, a trampoline looks the key up among the objects that C may call
on the bases that have entered C (`live`). If the key isn't there, the callback is late, and nothing
happens. See `dispatch`.

*Who frees it, and when?* An event base knows everything that is made on it and closes it in a fixed
order before itself (the ledger). What can't be freed at once, because libevent or a method is in
the middle of using it, or because this is the wrong thread, waits for a clean moment in the base's
own loop (the graveyard). What has no base, such as a buffer, is freed with the last reference to
its pointer. See `owner` and `pointers`.

*Who may use it?* The thread that owns the base. Any other gets `ThreadError`, except in the few
methods that are meant for it, and so does a forked child until it calls `EventBase.reinit` (there
it is `ForkError`). See `owner`, `frames` and `fork`.

Read in this order: `handle`, `dispatch`, `owner`. The other modules are needed only where they are
named: `pointers` (freed with the last reference), `frames` (which methods are on the stack),
`references` (Python memory that libevent refers to), `signals`, `wakeup`, `load`, `convert`.
"""
