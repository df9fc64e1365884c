"""Other code in the middle of an operation: at each step of the package's own Python.

An `Interposer` counts the steps of what it runs, and acts at one of them. A step is a place between
two instructions where CPython may run something else: a signal handler, a finalizer, the collector.
"""

from __future__ import annotations

import dis
import functools
import gc
import sys
from collections.abc import Callable
from types import CodeType, FrameType, MemberDescriptorType
from typing import Any

PACKAGE = "libevent_py"

#: Instructions that run nothing else, neither before what they do nor after it.
QUIET = {
    "BINARY_SUBSCR",
    "CACHE",
    "CONTAINS_OP",
    "COPY",
    "COPY_FREE_VARS",
    "DELETE_ATTR",
    "DELETE_SUBSCR",
    "DUP_TOP",
    "EXTENDED_ARG",
    "IS_OP",
    "JUMP_FORWARD",
    "KW_NAMES",
    "LOAD_CLOSURE",
    "LOAD_CONST",
    "LOAD_DEREF",
    "LOAD_FAST",
    "LOAD_FAST_AND_CLEAR",
    "LOAD_FAST_CHECK",
    "LOAD_FAST_LOAD_FAST",
    "LOAD_GLOBAL",
    "LOAD_METHOD",
    "MAKE_CELL",
    "NOP",
    "POP_BLOCK",
    "POP_JUMP_BACKWARD_IF_FALSE",
    "POP_JUMP_BACKWARD_IF_NONE",
    "POP_JUMP_BACKWARD_IF_NOT_NONE",
    "POP_JUMP_BACKWARD_IF_TRUE",
    "POP_JUMP_FORWARD_IF_FALSE",
    "POP_JUMP_FORWARD_IF_NONE",
    "POP_JUMP_FORWARD_IF_NOT_NONE",
    "POP_JUMP_FORWARD_IF_TRUE",
    "POP_JUMP_IF_FALSE",
    "POP_JUMP_IF_NONE",
    "POP_JUMP_IF_NOT_NONE",
    "POP_JUMP_IF_TRUE",
    "POP_TOP",
    "PRECALL",
    "PUSH_NULL",
    "ROT_THREE",
    "ROT_TWO",
    "STORE_ATTR",
    "STORE_DEREF",
    "STORE_FAST",
    "STORE_FAST_LOAD_FAST",
    "STORE_FAST_STORE_FAST",
    "STORE_SUBSCR",
    "SWAP",
}

#: Instructions after which CPython looks whether a signal has come.
LOOKING = {
    "CALL",
    "CALL_FUNCTION",
    "CALL_FUNCTION_EX",
    "CALL_FUNCTION_KW",
    "CALL_KW",
    "CALL_METHOD",
    "JUMP_ABSOLUTE",
    "JUMP_BACKWARD",
    "RESUME",
}

#: Those before which Python 3.10 looks at no signal: what they begin would not be ended.
BEGINNING = {"BEFORE_ASYNC_WITH", "SETUP_FINALLY", "SETUP_WITH", "YIELD_FROM"}

#: The target of an instruction where no signal is looked at.
NOWHERE = -2

#: What each instruction of a code is: whether it is quiet, whether it looks, and what handles what
#: is raised there.
Kinds = dict[int, tuple[bool, bool, int]]

_kinds: dict[CodeType, Kinds] = {}


@functools.cache
def slots() -> set[str]:
    """Return the names that only slots of the package's classes have: to read one is quiet."""
    found = {"__class__"}
    others: set[str] = set()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == PACKAGE:
            for kind in vars(module).values():
                if isinstance(kind, type) and kind.__module__ == name:
                    for member, thing in vars(kind).items():
                        one = isinstance(thing, MemberDescriptorType)
                        (found if one else others).add(member)
    # A closed object's `pointer` is a property, a call, in which there are steps; no open one's is.
    return found - others | {"pointer"}


def is_quiet(one: dis.Instruction) -> bool:
    return one.opname in QUIET or (one.opname == "LOAD_ATTR" and one.argval in slots())


def handlers(code: CodeType) -> dict[int, int]:
    """Return what handles what is raised at each instruction of *code*, from Python 3.11 on.

    What the handler of a signal raises comes from the instruction that has looked, and not from the
    one where a trace function is called: so both must have the same.
    """
    parse = getattr(dis, "_parse_exception_table", None)
    found: dict[int, int] = {}
    for entry in parse(code) if parse is not None else ():
        for offset in range(entry.start, entry.end, 2):
            found[offset] = entry.target
    return found


def kinds(code: CodeType) -> Kinds:
    """Return what the instructions of *code* are, by where they are."""
    known = _kinds.get(code)
    if known is None:
        handled = handlers(code)
        late = BEGINNING if sys.version_info < (3, 11) else ()
        known = {
            one.offset: (
                *(is_quiet(one), one.opname in LOOKING),
                NOWHERE if one.opname in late else handled.get(one.offset, -1),
            )
            for one in dis.get_instructions(code)
        }
        _kinds[code] = known
    return known


def interrupt() -> None:
    """Do what Ctrl-C does: an act for an `Interposer`."""
    raise KeyboardInterrupt


class Interposer:
    """Runs something, and acts at one of its steps, the *number*-th from 0 on; with -1 at none.

    With *lines*, there is a step for each line, else for each instruction. With *signals*, only
    where CPython runs the handlers of signals.
    """

    def __init__(
        self,
        act: Callable[[], object],
        number: int,
        *,
        lines: bool = False,
        signals: bool = False,
    ) -> None:
        self.act = act
        self.number = number
        self.lines = lines
        self.signals = signals
        #: How many steps there have been.
        self.steps = 0
        #: Where it has acted, or None.
        self.where: str | None = None

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run *function*, and return what it returns or raise what it raises."""
        # CPython keeps no reference of its own while it reports what a finalizer has raised.
        traced = self._called
        # Else the collector may run finalizers of earlier tests here, which would be acted in.
        collects = gc.isenabled()
        gc.disable()
        # Python 3.12 tells of instructions only if some frame has asked before it traces anything.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(traced)
        try:
            return function(*arguments)
        finally:
            sys.settrace(None)
            if collects:
                gc.enable()
            del traced

    def _called(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith(PACKAGE):
            return None
        known, signals, lines = kinds(frame.f_code), self.signals, self.lines
        # Where a function begins CPython looks, too; from 3.11 on no instruction there is traced.
        if signals:
            self._step(name, frame)
        was_quiet, looked, handler, line = False, False, -1, -1

        def step(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal was_quiet, looked, handler, line
            if event != "opcode":
                # An exception has been made. Where it is handled Python 3.10 looks for signals, so
                # that an interrupt can come before a `finally` begins, and nothing helps there;
                # those after it don't look.
                was_quiet = looked = False
                return step
            quiet, looks, now = known[frame.f_lasti]
            possible = looked and now == handler if signals else not (quiet and was_quiet)
            was_quiet, looked, handler = quiet, looks, now if now != NOWHERE else -1
            if not possible or (lines and frame.f_lineno == line):
                return step
            line = frame.f_lineno
            self._step(name, frame)
            return step

        # Python 3.13 tells of none in a code's first run if the frame's function is set later.
        frame.f_trace = step
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    def _step(self, name: str, frame: FrameType) -> None:
        """Count a step, and act if it is the one."""
        number, self.steps = self.steps, self.steps + 1
        if number == self.number:
            sys.settrace(None)
            self.where = f"{name}:{frame.f_lineno}, in {frame.f_code.co_name}"
            self.act()


class Asking:
    """Something that is asked for once more in the middle, at one of its steps."""

    def __init__(self, ask: Callable[[], Any], number: int) -> None:
        self.got: list[Any] = []
        interposer = Interposer(lambda: self.got.append(ask()), number, signals=True)
        self.got.append(interposer.run(ask))
        self.done = interposer.where is None


class Within(Interposer):
    """One that acts only in functions of the names *names*."""

    names: tuple[str, ...] = ()

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_name not in self.names:
            return None
        return super()._called(frame, event, argument)
