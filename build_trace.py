"""Build ``libevent_py._trace.preload``, which traces calls to libevent, from the cdefs and its C.

Each public function of libevent's gets a body that tells the call and passes it on: see
`libevent_py/_trace/preload.c`. How an argument is told follows from its type; the tables below say
the rest.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cffi import FFI, model

import build_ffi
from vendor import fetch

ROOT = Path(__file__).resolve().parent
MADE = ROOT / "build" / "trace"

#: What objects are called, by the names of their structs.
KINDS = {
    "event_base": "base",
    "event": "ev",
    "bufferevent": "bev",
    "evbuffer": "buf",
    "evconnlistener": "listener",
    "evdns_base": "dns",
    "evdns_request": "lookup",
    "evdns_getaddrinfo_request": "lookup",
    "evdns_server_port": "port",
    "evdns_server_request": "query",
    "evhttp": "http",
    "evhttp_connection": "evcon",
    "evhttp_request": "req",
    "evhttp_bound_socket": "bound",
    "evhttp_uri": "uri",
    "evkeyvalq": "headers",
    "event_config": "config",
    "ev_token_bucket_cfg": "bucket",
    "bufferevent_rate_limit_group": "group",
    "evbuffer_file_segment": "segment",
    "evbuffer_cb_entry": "cb",
    "evrpc_base": "rpc",
    "evrpc_pool": "pool",
    "evutil_monotonic_timer": "timer",
    "ssl_st": "ssl",
    "ssl_ctx_st": "ctx",
}

#: Which flags an argument has, by the function's name and its own: the first line that matches.
FLAGS = [
    (r".*", r"ncalls", ""),
    (r"event_base_loop", r"flags|arg\d", "EVLOOP_"),
    (r"event_base_get_(num|max)_events", r".*", "EVENT_BASE_COUNT_"),
    (r"event_config_set_flag", r"flag", "EVENT_BASE_FLAG_"),
    (r"event_config_require_features", r"feature", "EV_FEATURE_"),
    (r"bufferevent_trigger_event", r"what|events", "BEV_EVENT_"),
    (r"bufferevent_trigger(_event)?", r"options", "BEV_TRIG_"),
    (r"bufferevent_.*|.*_bufferevent.*", r"options", "BEV_OPT_"),
    (r"bufferevent_\w+", r"events?|iotype", "EV_"),
    (r"event_.*|bufferevent_setwatermark", r"events|what|res|events_out", "EV_"),
    (r"evconnlistener_new.*", r"flags", "LEV_OPT_"),
    (r"evbuffer_(set|clear)_flags", r"flags", "EVBUFFER_FLAG_"),
    (r"evbuffer_file_segment_new", r"flags", "EVBUF_FS_"),
    (r"evdns_base_resolve.*", r"flags", "DNS_QUERY_"),
    (r"evdns_base_new", r".*flags.*", "EVDNS_BASE_"),
    (r"evhttp_set_allowed_methods", r"methods", "EVHTTP_REQ_"),
    (r"evbuffer_cb_.*", r"flags", "EVBUFFER_CB_"),
]

#: The flags of events: the cdefs have other constants that begin so.
EVENTS = (
    *("EV_TIMEOUT", "EV_READ", "EV_WRITE", "EV_SIGNAL", "EV_PERSIST", "EV_ET"),
    *("EV_FINALIZE", "EV_CLOSED"),
)

#: What a function has as its result, in the same way.
FLAG_RESULTS = {"bufferevent_get_enabled": "EV_", "event_get_events": "EV_", "event_pending": "EV_"}

#: What callbacks are called, by the names of the arguments.
ROLES = {
    "readcb": "on_read",
    "writecb": "on_write",
    "eventcb": "on_event",
    "errorcb": "on_event",
    "input_filter": "input_filter",
    "output_filter": "output_filter",
    "cb": "callback",
    "fn": "callback",
    "callback": "callback",
}

#: Functions after which an object is no more, or not the same one.
ENDS = {
    "event_free": 0,
    "event_free_finalize": 1,
    "event_base_free": 0,
    "event_base_free_nofinalize": 0,
    "bufferevent_free": 0,
    "evbuffer_free": 0,
    "evconnlistener_free": 0,
    "evdns_base_free": 0,
    "evdns_close_server_port": 0,
    "evhttp_free": 0,
    "evhttp_connection_free": 0,
    "evhttp_request_free": 0,
    "evhttp_uri_free": 0,
    "event_config_free": 0,
    "ev_token_bucket_cfg_free": 0,
    "bufferevent_rate_limit_group_free": 0,
    "evbuffer_file_segment_free": 0,
    "evrpc_free": 0,
    "evrpc_pool_free": 0,
    "evutil_monotonic_timer_free": 0,
    "event_assign": 0,
    "event_set": 0,
}

#: Those of them that make another one of its memory.
BEGINS = {"event_assign", "event_set"}

#: Functions whose callbacks get each request once: libevent itself has freed those before.
GIVES_REQUESTS = {"evhttp_set_cb", "evhttp_set_gencb"}

#: What a result is a part of: its label, and which argument is the whole.
PARTS = {
    "bufferevent_get_input": ("input of bev", 0),
    "bufferevent_get_output": ("output of bev", 0),
    "evhttp_request_get_input_buffer": ("input of req", 0),
    "evhttp_request_get_output_buffer": ("output of req", 0),
    "evhttp_request_get_input_headers": ("input headers of req", 0),
    "evhttp_request_get_output_headers": ("output headers of req", 0),
}

#: Which argument is filled in with as many bytes as the result says.
FILLED = {
    "evbuffer_remove": 1,
    "evbuffer_copyout": 1,
    "evbuffer_copyout_from": 2,
    "bufferevent_read": 1,
}

#: How many bytes a text has that need not end with a NUL, where that isn't what comes next.
SIZES = {
    ("evutil_ascii_strncasecmp", "str1"): "strnlen(a0, a2)",
    ("evutil_ascii_strncasecmp", "str2"): "strnlen(a1, a2)",
    ("evhttp_uriencode", "str"): "a1 < 0 ? strlen(a0) : (size_t)a1",
    ("evdns_server_request_add_reply", "data"): "a8 == NULL ? 0 : a7 ? strlen(a8) : (size_t)a6",
}

#: In preload.c's end, because they need more than the types say.
BY_HAND = {
    "event_set_mem_functions",
    "event_get_callback",
    "event_get_callback_arg",
    "event_get_assignment",
    "bufferevent_getcb",
    "evbuffer_add_printf",
    "evhttp_request_set_chunked_cb",
    "evhttp_request_set_header_cb",
    "evhttp_request_set_error_cb",
    "evhttp_request_set_on_complete_cb",
    "evconnlistener_set_error_cb",
}

#: Not told, because a program calls them all the time and they do nothing to libevent's objects;
#: or because libevent compares their results.
UNTOLD = {"evutil_snprintf", "event_self_cbarg", "evutil_gettimeofday"}

#: Functions that take back what another has handed over, and so must name the same.
TAKES_BACK = {"evbuffer_remove_cb": "evbuffer_add_cb"}

#: Functions whose callbacks are passed on as they are.
AS_THEY_ARE = {"evrpc_register_generic", "evrpc_make_request_ctx"}

EXPORTED = re.compile(r"EVENT2_EXPORT_SYMBOL[^;{]*?\b(\w+)\s*\(")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


class Function:
    """A function of libevent's, with the names of its arguments."""

    def __init__(self, name: str, type: Any, names: list[str], number: int) -> None:
        self.name, self.type, self.names, self.number = name, type, names, number
        self.args = list(type.args)


def declarations() -> tuple[FFI, str]:
    include = fetch.headers()
    ffi, text = FFI(), []
    for cdef, _ in build_ffi.assemble(include, set(), ""):
        ffi.cdef(cdef)
        text.append(COMMENT.sub("", cdef))
    return ffi, "\n".join(text)


def names_in(text: str, function: str, count: int) -> list[str]:
    """Return the names of *function*'s arguments in the cdefs, or arg0 and so on."""
    found = re.search(rf"\b{function}\s*\(", text)
    made = [f"arg{place}" for place in range(count)]
    if not found:
        return made
    depth, start, parts = 1, found.end(), []
    for at in range(found.end(), len(text)):
        letter = text[at]
        depth += (letter == "(") - (letter == ")")
        if depth == 0 or (depth == 1 and letter == ","):
            parts.append(text[start:at])
            start = at + 1
        if depth == 0:
            break
    for place, part in enumerate(parts[:count]):
        if pointer := re.search(r"\(\s*\*\s*(\w+)\s*\)", part):
            made[place] = pointer[1]
        elif re.search(r"\w[\s*]+\w+\s*$", part):
            made[place] = re.findall(r"\w+", part)[-1]
    return made


def functions(ffi: FFI, text: str) -> list[Function]:
    exported = set()
    for header in sorted((fetch.VENDORED / "event2").glob("*.h")):
        exported.update(EXPORTED.findall(COMMENT.sub("", header.read_text())))
    found = []
    for key, (type, _) in ffi._parser._declarations.items():
        kind, _, name = key.partition(" ")
        if kind != "function" or name not in exported or name in UNTOLD:
            continue
        found.append(Function(name, type, names_in(text, name, len(type.args)), len(found)))
    return found


def struct_of(type: Any) -> str | None:
    """Return the name of the struct that *type* points to, const or not."""
    if isinstance(type, model.PointerType) and isinstance(type.totype, model.StructType):
        return str(type.totype.name)
    return None


def is_void(type: Any) -> bool:
    return isinstance(type, model.VoidType)


def is_number(type: Any) -> bool:
    return isinstance(type, (model.PrimitiveType, model.UnknownIntegerType))


def is_unsigned(type: Any) -> bool:
    return bool(type.name.startswith(("uint", "unsigned", "size_t")))


def is_filled_in(type: Any) -> bool:
    """Tell whether an argument of *type* points to a number, or a time, for C to fill in."""
    if not isinstance(type, model.PointerType) or "const" in type.get_c_name():
        return False
    number = is_number(type.totype) and type.totype.name not in ("char", "unsigned char")
    return number or struct_of(type) == "timeval"


def flags_for(function: str, name: str) -> str | None:
    """Return the prefix of the flags that the argument *name* of *function* has; "" for none."""
    for which, argument, prefix in FLAGS:
        if re.fullmatch(which, function) and re.fullmatch(argument, name):
            return prefix
    return None


def size_behind(function: Function, place: int) -> str | None:
    """Return the argument behind the one at *place* if it says how many bytes that one has."""
    behind = place + 1
    if known := SIZES.get((function.name, function.names[place])):
        return known
    if behind < len(function.args) and is_number(function.args[behind]):
        integer = function.args[behind].name in ("size_t", "int", "ssize_t")
        if integer and re.search(r"len|size|n\b", function.names[behind]):
            return f"a{behind}"
    return None


def own_argument(type: Any) -> int | None:
    """Return which argument of a callback is the user's own."""
    found = [n for n, each in enumerate(type.args) if each.get_c_name().strip() == "void *"]
    return found[-1] if found else None


def wrapped_in(function: Function) -> tuple[list[int], int] | None:
    """Return which arguments are callbacks that are wrapped, and which is the user's for them."""
    places = [
        place
        for place, type in enumerate(function.args)
        if isinstance(type, model.FunctionPtrType) and own_argument(type) is not None
    ]
    if not places or function.name in AS_THEY_ARE:
        return None
    for place in range(places[-1] + 1, len(function.args)):
        if function.args[place].get_c_name().strip() == "void *":
            return places, place
    return None


def role_of(function: Function, place: int) -> str:
    """Return what the callback at *place* is called in a trace."""
    role = ROLES.get(function.names[place], function.names[place])
    if function.name == "evhttp_set_bevcb":
        return "bevcb"
    if function.name.startswith("evconnlistener"):
        return "on_accept"
    if function.name.startswith("evhttp") and role == "callback":
        return "on_request" if "set" in function.name else "on_done"
    return "callback" if role.startswith("arg") else role


def table(name: str, constants: Iterable[str]) -> str:
    """Return the C of a table of *constants* and their names."""
    rows = "".join(f'\t{{{constant}, "{constant}"}},\n' for constant in constants)
    return f"static const struct name {name}[] = {{\n{rows}\t{{0, NULL}},\n}};\n"


class Writer:
    """Writes functions.inc."""

    def __init__(self, ffi: FFI, text: str) -> None:
        self.text = text
        self.tables: dict[str, str] = {}
        self.found = functions(ffi, text)
        self.kinds = {name: place + 1 for place, name in enumerate(KINDS)}

    def kind(self, type: Any) -> int:
        """Return the number of the kind of object that *type* points to."""
        return self.kinds[struct_of(type) or ""]

    def flags(self, prefix: str) -> str:
        """Return the table of the constants that begin with *prefix*."""
        name = f"names_of_{prefix.rstrip('_')}"
        constants = re.findall(rf"\b{prefix}[A-Z0-9_]+\b", self.text)
        self.tables[name] = table(name, EVENTS if prefix == "EV_" else dict.fromkeys(constants))
        return name

    def enum(self, type: Any) -> str:
        """Return the table of the constants of an enumeration."""
        name = f"names_of_enum_{type.name}"
        self.tables[name] = table(name, type.enumerators)
        return name

    def told(self, type: Any, value: str, flags: str | None = None, size: str | None = None) -> str:
        """Return the C that tells *value*, a set of *flags* or data of *size* bytes."""
        struct, c_name = struct_of(type), type.get_c_name().strip()
        address = f"(const volatile void *)(uintptr_t){value}"
        if struct in self.kinds:
            return f"put_object({value}, {self.kinds[struct]});"
        if struct in ("timeval", "sockaddr", "evbuffer_ptr"):
            return f"put_{struct}({value});"
        if isinstance(type, model.FunctionPtrType):
            return f"put_function({address});"
        if isinstance(type, model.EnumType):
            return f"put_name({value}, {self.enum(type)});"
        if is_number(type):
            if flags or (flags is None and type.name == "short"):
                return f"put_flags({value}, {self.flags(flags or 'EV_')});"
            return f"put_{'unsigned' if is_unsigned(type) else 'number'}({value});"
        if c_name in ("char const *", "void const *", "unsigned char const *") and size:
            return f"put_bytes({value}, {size});"
        if c_name == "char const *":
            return f"put_string({value});"
        return f"put_pointer({address});"

    def trampoline(self, function: Function, place: int, index: int) -> str:
        """Return the C function that libevent gets for the callback at *place*."""
        type = function.args[place]
        own, role = own_argument(type), role_of(function, place)
        assert own is not None
        name = f"called_{function.name}_{index}"
        given = ", ".join(each.get_c_name(f" p{n}") for n, each in enumerate(type.args))
        passed = ", ".join("record->arg" if n == own else f"p{n}" for n in range(len(type.args)))
        result, void = type.result.get_c_name().strip(), is_void(type.result)
        flags = "BEV_EVENT_" if role == "on_event" else None
        told = [
            f"\t\t{self.told(each, f'p{n}', flags)}" for n, each in enumerate(type.args) if n != own
        ]
        fresh = []
        if function.name in GIVES_REQUESTS:
            fresh = [f"\t\tnote_new(p0, {self.kind(type.args[0])});"]
        call = f"((__typeof__(&{name}))record->users[{index}])({passed});"
        return "\n".join(
            [
                f"static {result} {name}({given})",
                "{",
                f"\tstruct record *record = p{own};",
                "\tstruct callback callback;",
                *([] if void else [f"\t{result} r;"]),
                "",
                f'\tbegin_callback(&callback, "{role}");',
                "\tif (callback.traced) {",
                *fresh,
                '\n\t\tput(", ", 2);\n'.join(told),
                "\t}",
                "\tenter_callback(&callback);",
                f"\t{'' if void else 'r = '}{call}",
                f'\tend_callback(&callback, "{role}");',
                *([] if void else ["\treturn r;"]),
                "}",
                "",
            ]
        )

    def arguments(self, function: Function) -> tuple[list[str], list[str]]:
        """Return the C that tells the arguments: before the call, and those filled in by it."""
        early: list[str] = []
        late: list[str] = []
        for n, type in enumerate(function.args):
            flags = flags_for(function.name, function.names[n])
            told = self.told(type, f"a{n}", flags, size_behind(function, n))
            if FILLED.get(function.name) == n:
                late += ["next(&call);", f"put_bytes(a{n}, (ssize_t)r > 0 ? (size_t)r : 0);"]
            elif is_filled_in(type) and struct_of(type) == "timeval":
                late += ["next(&call);", f"put_timeval(a{n});"]
            elif is_filled_in(type):
                late += ["next(&call);", f"PUT_NUMBER_AT(a{n});"]
            else:
                (late or early).extend(["next(&call);", told])
        return early, late

    def outcome(self, function: Function) -> tuple[list[str], str]:
        """Return the C that tells the result, and that for whether it is a failure."""
        type, name = function.type.result, function.name
        if is_void(type):
            return [], "0"
        if name in PARTS:
            label, whole = PARTS[name]
            of = f"a{whole}, {self.kind(function.args[whole])}"
            part = f'note_part(r, {self.kind(type)}, "{label}", {of});'
            return ["result(&call);", part, self.told(type, "r")], "0"
        if isinstance(type, model.StructType):
            told = f"put_{type.name}(&r);"
        elif type.get_c_name().strip() == "char *":
            told = "put_string(r);"
        else:
            told = self.told(type, "r", FLAG_RESULTS.get(name))
        failed = "0"
        if isinstance(type, model.PointerType) and re.search("new|resolve", name):
            failed = "r == NULL"
        elif is_number(type) and not is_unsigned(type):
            failed = "r == -1"
        fresh = []  # an object that libevent itself has freed may have been there before
        if struct_of(type) in self.kinds and re.search("_new", name):
            fresh = [f"forget(r, {self.kind(type)});"]
        return ["result(&call);", *fresh, told], failed

    def body(self, function: Function) -> str:
        """Return the C function that stands before libevent's, after those for its callbacks."""
        name, type, wrapped = function.name, function.type, wrapped_in(function)
        given = ", ".join(each.get_c_name(f" a{n}") for n, each in enumerate(function.args))
        passed = [f"a{n}" for n in range(len(function.args))]
        result, void = type.result.get_c_name().strip(), is_void(type.result)
        plain = f"real({', '.join(passed)});"
        leaves = f"{{\n\t\t{plain}\n\t\treturn;\n\t}}" if void else f"\n\t\treturn {plain}"
        early, late = self.arguments(function)
        told, failed = self.outcome(function)
        if name in ENDS:
            ends = f"forget(a{ENDS[name]}, {self.kind(function.args[ENDS[name]])});"
            early.insert(0 if name in BEGINS else len(early), ends)
        from_here = "__builtin_return_address(0)"
        lines = [
            f"{result} {name}({given or 'void'})",
            "{",
            f"\t__typeof__(&{name}) real = (__typeof__(&{name}))find({function.number});",
            "\tstruct call call;",
            "\tint known_error, traced;",
            *([] if void else [f"\t{result} r;"]),
            "",
        ]
        if wrapped:  # what libevent makes for itself keeps its own callbacks
            lines.insert(5, f"\tint own = passes_on({from_here});")
        lines.append(f"\ttraced = begin_call(&call, {function.number}, {from_here});")
        lines.append(f"\tif (!traced{' && own' if wrapped else ''}) {leaves}")
        telling = (f"\t\t{line}" for line in early)
        lines += ["\tif (traced) {", *telling, "\t\tenter(&call);", "\t}"]
        if wrapped:
            lines += self.records(function, *wrapped)
            wraps = TAKES_BACK.get(name, name)
            for index, place in enumerate(wrapped[0]):
                passed[place] = f"own || a{place} == NULL ? a{place} : called_{wraps}_{index}"
            passed[wrapped[1]] = f"own ? a{wrapped[1]} : (void *)record"
        real = f"real({', '.join(passed)})"
        if void:
            lines += ["\tif (!traced || !call.injected)", f"\t\t{real};"]
        elif isinstance(type.result, model.StructType):
            lines.append(f"\tr = {real};")
        else:
            lines.append(f"\tr = traced && call.injected ? ({result})call.value : {real};")
        if name == "event_new":
            lines += ["\tif (record != NULL && itself)", "\t\trecord->arg = r;"]
        lines += [
            "\tknown_error = errno;",
            "\tif (!traced)",
            f"\t\treturn{'' if void else ' r'};",
            "\tleave(&call);",
            *(f"\t{line}" for line in (*late, *told)),
            f"\tend_call(&call, known_error, {failed});",
            *([] if void else ["\treturn r;"]),
            "}",
            "",
        ]
        places = wrapped[0] if wrapped and name not in TAKES_BACK else ()
        before = [self.trampoline(function, place, n) for n, place in enumerate(places)]
        return "\n".join([*before, *lines])

    @staticmethod
    def records(function: Function, places: list[int], own: int) -> list[str]:
        """Return the C that makes the record for the callbacks at *places*."""
        name, arg, is_shared = function.name, f"a{own}", "1"
        users = ", ".join(f"(void *)a{place}" for place in places)
        lines = [f"\tvoid *users[4] = {{{users}}};"]
        if name == "evhttp_request_new":  # which notes other callbacks there
            is_shared = "0"
        if name in ("event_new", "event_assign"):
            lines.append(f"\tint itself = {arg} != NULL && {arg} == self_cbarg();")
            itself = "NULL" if name == "event_new" else "a0"
            arg, is_shared = f"itself ? {itself} : {arg}", "!itself"
        record = f"record_for(users, {arg}, {is_shared})"
        return [*lines, f"\tstruct record *record = own ? NULL : {record};"]

    def write(self) -> Iterator[str]:
        """Yield the lines of functions.inc."""
        self.flags("EV_")
        bodies = [self.body(each) for each in self.found if each.name not in BY_HAND]
        yield "/* Made by build_trace.py. */"
        # cffi takes an array that is an argument for the pointer that it is.
        for warning in "-Wpragmas", "-Wunknown-warning-option", "-Warray-parameter":
            yield f'#pragma GCC diagnostic ignored "{warning}"'
        yield from (f"#undef {each.name}" for each in self.found)
        names = "".join(f'\t"{kind}",\n' for kind in KINDS.values())
        yield f"static const char *const kinds[] = {{\n\tNULL,\n{names}}};"
        yield "enum {"
        yield from (f"\tKIND_{name} = {number}," for name, number in self.kinds.items())
        yield from (f"\tID_{each.name} = {each.number}," for each in self.found)
        yield "};"
        yield "static struct function functions[] = {"
        yield from (f'\t{{"{each.name}", NULL, 0}},' for each in self.found)
        yield "\t{NULL, NULL, 0},"
        yield "};"
        yield from self.tables.values()
        yield from bodies


def include_dirs() -> list[str]:
    """Write functions.inc, and return the directories of all headers."""
    MADE.mkdir(parents=True, exist_ok=True)
    writer = Writer(*declarations())
    (MADE / "functions.inc").write_text("\n".join(writer.write()) + "\n")
    return [str(MADE), str(fetch.VENDORED)]


def macros() -> list[tuple[str, str]]:
    """Return the macros that preload.c is compiled with."""
    openssl = (fetch.VENDORED / "event2" / "bufferevent_ssl.h").exists()
    return [("LIBEVENT_PY_HAVE_OPENSSL", str(int(openssl)))]


if __name__ == "__main__":
    print(*include_dirs())
