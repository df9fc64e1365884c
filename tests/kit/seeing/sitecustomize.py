"""Have the examples tell which public names they use: for ``python -m tests.kit.examples``.

Python imports this module when it starts with this folder in PYTHONPATH. Modules in one of the
folders of SEEING_IN are compiled so that each ``value.name`` also writes to the file SEEING_TO
whose name that was, and where: so what is found has run, and has the type that it had then.
"""

from __future__ import annotations

import ast
import builtins
import importlib.machinery
import os
import types
from collections.abc import Sequence
from typing import Any

FOLDERS = tuple(os.environ["SEEING_IN"].split(os.pathsep))
SINK = os.open(os.environ["SEEING_TO"], os.O_WRONLY | os.O_APPEND)
PACKAGE = "libevent_py"

#: By which methods Python's syntax and its own functions reach an object.
BUILTIN = {"len": "__len__", "bytes": "__bytes__", "str": "__str__", "list": "__iter__"}
COMPARED: dict[type[ast.cmpop], str] = {ast.Eq: "__eq__", ast.NotEq: "__eq__"}
COMPARED |= {ast.In: "__contains__", ast.NotIn: "__contains__"}
SUBSCRIPT: dict[type[ast.expr_context], str] = {ast.Load: "__getitem__"}
SUBSCRIPT |= {ast.Store: "__setitem__", ast.Del: "__delitem__"}

told: set[str] = set()


def tell(*what: object) -> None:
    """Write a line, if it is a new one."""
    line = "\t".join(map(str, what))
    if line not in told:
        told.add(line)
        os.write(SINK, f"{line}\n".encode())


def owner(value: Any) -> str | None:
    """Return the class or module of libevent_py's that *value* is or belongs to."""
    if isinstance(value, types.ModuleType):
        return value.__name__ if value.__name__.startswith(PACKAGE) else None
    kind = value if isinstance(value, type) else type(value)
    for each in kind.__mro__:
        if each.__module__.startswith(PACKAGE):
            return f"{each.__module__}:{each.__qualname__}"
    return None


def seen(value: Any, name: str, where: str) -> Any:
    """Tell that the attribute *name* of *value* is used, and return *value*."""
    if found := owner(value):
        tell("attribute", found, name, where)
    return value


def called(function: Any, keywords: Sequence[str], where: str) -> Any:
    """Tell that *function* is called, if it is an object or a class with these as its members."""
    if found := owner(function):
        if not isinstance(function, (type, types.FunctionType, types.BuiltinFunctionType)):
            tell("attribute", found, "__call__", where)
        if isinstance(function, type):
            for keyword in keywords:
                tell("attribute", found, keyword, where)
    return function


def entered(value: Any, where: str) -> Any:
    """Tell that a ``with`` block closes *value*, and return it."""
    if (found := owner(value)) and hasattr(value, "close"):
        tell("with", found, "close", where)
    return value


class Telling(ast.NodeTransformer):
    """Put calls of `seen` and `called` into a module."""

    def __init__(self, path: str) -> None:
        self.path = path

    def where(self, node: ast.expr) -> ast.Constant:
        """Return the place of *node*."""
        return ast.Constant(f"{self.path}:{node.end_lineno}")

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        """Have it told whose attribute that is."""
        place = self.where(node)
        self.generic_visit(node)
        node.value = self.call("seen", node.value, ast.Constant(node.attr), place)
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        """Have it told what is called."""
        place = self.where(node.func)
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in BUILTIN and node.args and not isinstance(node.args[0], ast.Starred):
            node.args[0] = self.call("seen", node.args[0], ast.Constant(BUILTIN[name]), place)
        elif not hasattr(builtins, name):
            keywords: list[ast.expr] = [
                ast.Constant(each.arg) for each in node.keywords if each.arg
            ]
            node.func = self.call("called", node.func, ast.Tuple(keywords, ast.Load()), place)
        return node

    def visit_withitem(self, node: ast.withitem) -> ast.withitem:
        """Have it told what a block closes."""
        place = self.where(node.context_expr)
        self.generic_visit(node)
        node.context_expr = self.call("entered", node.context_expr, place)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.Subscript:
        """Have it told whose item is got, set or deleted."""
        method = SUBSCRIPT[type(node.ctx)]
        place = self.where(node)
        self.generic_visit(node)
        node.value = self.call("seen", node.value, ast.Constant(method), place)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        """Have it told what is compared, or looked into."""
        place = self.where(node)
        self.generic_visit(node)
        for number, operator in enumerate(node.ops):
            if type(operator) in COMPARED:
                method = ast.Constant(COMPARED[type(operator)])
                node.comparators[number] = self.call(
                    "seen", node.comparators[number], method, place
                )
        if isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
            node.left = self.call("seen", node.left, ast.Constant("__eq__"), place)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.BinOp:
        """Have it told what something is subtracted from."""
        place = self.where(node)
        self.generic_visit(node)
        if isinstance(node.op, ast.Sub):
            node.left = self.call("seen", node.left, ast.Constant("__sub__"), place)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AugAssign:
        """Have it told what something is added to."""
        place = self.where(node.target)
        self.generic_visit(node)
        if isinstance(node.op, ast.Add) and isinstance(node.target, ast.Name):
            target = ast.Name(node.target.id, ast.Load())
            told = self.call("seen", target, ast.Constant("__iadd__"), place)
            both = ast.Tuple([told, node.value], ast.Load())
            node.value = ast.Subscript(both, ast.Constant(1), ast.Load())
        return node

    def visit_For(self, node: ast.For) -> ast.For:
        """Have it told what is iterated."""
        place = self.where(node.iter)
        self.generic_visit(node)
        node.iter = self.call("seen", node.iter, ast.Constant("__iter__"), place)
        return node

    def visit_MatchValue(self, node: ast.MatchValue) -> ast.MatchValue:
        """Leave patterns as they are."""
        return node

    @staticmethod
    def call(function: str, *arguments: ast.expr) -> ast.Call:
        """Return a call of one of this module's functions."""
        return ast.Call(ast.Name(f"__{function}__", ast.Load()), list(arguments), [])


get_code = importlib.machinery.SourceFileLoader.get_code


def get_code_that_tells(self: importlib.machinery.SourceFileLoader, fullname: str) -> Any:
    """Compile the modules of `FOLDERS` so that they tell."""
    path = self.get_filename(fullname)
    if not path.startswith(FOLDERS):
        return get_code(self, fullname)
    tree = Telling(path).visit(ast.parse(self.get_data(path)))
    return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


vars(builtins).update(__seen__=seen, __called__=called, __entered__=entered)
setattr(importlib.machinery.SourceFileLoader, get_code.__name__, get_code_that_tells)
