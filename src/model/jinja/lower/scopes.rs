//! Which names a scope knows, as Jinja2's compiler sees it.
//!
//! Jinja2 decides before a template runs where each name belongs. A scope that sets a name, with nothing but inner scopes before, owns it: until it is set, those inner scopes find it undefined,
//! even if the template is given a value of that name. minijinja looks names up when it runs; so that both see the same, such a scope begins by making the name undefined.

use std::collections::BTreeSet;

use minijinja::machinery::ast;

/// What happens to a name at one level, in the order of the text.
enum Event<'a> {
    Load(&'a str),
    /// In a branch, if `true`.
    Store(&'a str, bool),
    /// In an inner scope.
    Inner(&'a str),
}

/// All names of a level, those of inner scopes left out.
pub fn known(body: &[ast::Stmt]) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    level(body, false, &mut |event| match event {
        Event::Load(name) | Event::Store(name, _) => {
            known.insert(name.to_string());
        }
        Event::Inner(_) => {}
    });
    known
}

/// The names that a scope owns before it sets them. `outside` knows the names of the scopes around.
pub fn owned_early(body: &[ast::Stmt], parameters: &[&str], outside: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut seen: BTreeSet<String> = parameters.iter().map(ToString::to_string).collect();
    let (mut inner, mut early) = (BTreeSet::new(), Vec::new());
    level(body, false, &mut |event| match event {
        Event::Load(name) | Event::Store(name, true) => {
            seen.insert(name.to_string());
        }
        Event::Inner(name) => {
            inner.insert(name.to_string());
        }
        Event::Store(name, false) => {
            if seen.insert(name.to_string()) && inner.contains(name) && !outside(name) {
                early.push(name.to_string());
            }
        }
    });
    early
}

/// Every name, wherever it stands.
pub fn all<'a>(body: &[ast::Stmt<'a>]) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    level(body, false, &mut |event| {
        let (Event::Load(name) | Event::Store(name, _) | Event::Inner(name)) = event;
        names.insert(name);
    });
    names
}

/// Names that are read anywhere in a body.
pub fn read<'a>(body: &[ast::Stmt<'a>], extra: &[ast::Expr<'a>]) -> BTreeSet<&'a str> {
    let mut names = all(body);
    for expr in extra {
        loads(expr, &mut |name| {
            names.insert(name);
        });
    }
    names
}

fn level<'a>(body: &[ast::Stmt<'a>], branch: bool, each: &mut dyn FnMut(Event<'a>)) {
    for statement in body {
        match statement {
            ast::Stmt::EmitExpr(emit) => loads(&emit.expr, &mut |name| each(Event::Load(name))),
            ast::Stmt::ForLoop(repeat) => {
                loads(&repeat.iter, &mut |name| each(Event::Load(name)));
                stores(&repeat.target, &mut |name| each(Event::Inner(name)));
                repeat.filter_expr.iter().for_each(|expr| loads(expr, &mut |name| each(Event::Inner(name))));
                inner(&repeat.body, each);
                inner(&repeat.else_body, each);
            }
            ast::Stmt::IfCond(choice) => {
                loads(&choice.expr, &mut |name| each(Event::Load(name)));
                level(&choice.true_body, true, each);
                level(&choice.false_body, true, each);
            }
            ast::Stmt::WithBlock(with) => {
                for (target, value) in &with.assignments {
                    loads(value, &mut |name| each(Event::Load(name)));
                    stores(target, &mut |name| each(Event::Inner(name)));
                }
                inner(&with.body, each);
            }
            ast::Stmt::Set(set) => {
                loads(&set.expr, &mut |name| each(Event::Load(name)));
                target(&set.target, branch, each);
            }
            ast::Stmt::SetBlock(set) => {
                target(&set.target, branch, each);
                set.filter.iter().for_each(|expr| loads(expr, &mut |name| each(Event::Inner(name))));
                inner(&set.body, each);
            }
            ast::Stmt::FilterBlock(block) => {
                loads(&block.filter, &mut |name| each(Event::Load(name)));
                inner(&block.body, each);
            }
            ast::Stmt::Macro(made) => {
                each(Event::Store(made.name, branch));
                read(&made.body, &made.defaults).into_iter().for_each(|name| each(Event::Inner(name)));
                made.args.iter().for_each(|arg| stores(arg, &mut |name| each(Event::Inner(name))));
            }
            ast::Stmt::CallBlock(call) => {
                loads(&call.call.expr, &mut |name| each(Event::Load(name)));
                arguments(&call.call.args, &mut |name| each(Event::Load(name)));
                read(&call.macro_decl.body, &call.macro_decl.defaults).into_iter().for_each(|name| each(Event::Inner(name)));
            }
            _ => {}
        }
    }
}

fn inner<'a>(body: &[ast::Stmt<'a>], each: &mut dyn FnMut(Event<'a>)) {
    all(body).into_iter().for_each(|name| each(Event::Inner(name)));
}

fn target<'a>(expr: &ast::Expr<'a>, branch: bool, each: &mut dyn FnMut(Event<'a>)) {
    match expr {
        // A namespace is read.
        ast::Expr::GetAttr(get) => loads(&get.expr, &mut |name| each(Event::Load(name))),
        _ => stores(expr, &mut |name| each(Event::Store(name, branch))),
    }
}

fn stores<'a>(expr: &ast::Expr<'a>, each: &mut dyn FnMut(&'a str)) {
    match expr {
        ast::Expr::Var(var) => each(var.id),
        ast::Expr::List(list) => list.items.iter().for_each(|item| stores(item, each)),
        _ => {}
    }
}

fn arguments<'a>(args: &[ast::CallArg<'a>], each: &mut dyn FnMut(&'a str)) {
    for arg in args {
        match arg {
            ast::CallArg::Pos(expr) | ast::CallArg::Kwarg(_, expr) | ast::CallArg::PosSplat(expr) | ast::CallArg::KwargSplat(expr) => {
                loads(expr, each);
            }
        }
    }
}

fn loads<'a>(expr: &ast::Expr<'a>, each: &mut dyn FnMut(&'a str)) {
    match expr {
        ast::Expr::Var(var) => each(var.id),
        ast::Expr::Const(_) => {}
        ast::Expr::Slice(slice) => {
            loads(&slice.expr, each);
            [&slice.start, &slice.stop, &slice.step].into_iter().flatten().for_each(|bound| loads(bound, each));
        }
        ast::Expr::UnaryOp(unary) => loads(&unary.expr, each),
        ast::Expr::BinOp(binary) => {
            loads(&binary.left, each);
            loads(&binary.right, each);
        }
        ast::Expr::Compare(compare) => {
            loads(&compare.expr, each);
            compare.ops.iter().for_each(|part| loads(&part.expr, each));
        }
        ast::Expr::IfExpr(choice) => {
            loads(&choice.test_expr, each);
            loads(&choice.true_expr, each);
            choice.false_expr.iter().for_each(|expr| loads(expr, each));
        }
        ast::Expr::Filter(filter) => {
            filter.expr.iter().for_each(|expr| loads(expr, each));
            arguments(&filter.args, each);
        }
        ast::Expr::Test(test) => {
            loads(&test.expr, each);
            arguments(&test.args, each);
        }
        ast::Expr::GetAttr(get) => loads(&get.expr, each),
        ast::Expr::GetItem(get) => {
            loads(&get.expr, each);
            loads(&get.subscript_expr, each);
        }
        ast::Expr::Call(call) => {
            loads(&call.expr, each);
            arguments(&call.args, each);
        }
        ast::Expr::List(list) => list.items.iter().for_each(|item| loads(item, each)),
        ast::Expr::Map(map) => map.keys.iter().chain(&map.values).for_each(|part| loads(part, each)),
    }
}

/// The names that an expression reads.
pub fn names_of<'a>(expr: &ast::Expr<'a>, each: &mut dyn FnMut(&'a str)) {
    loads(expr, each);
}

/// Whether a loop's body may end early.
pub fn jumps(body: &[ast::Stmt]) -> bool {
    body.iter().any(|statement| match statement {
        ast::Stmt::Continue(_) | ast::Stmt::Break(_) => true,
        ast::Stmt::IfCond(choice) => jumps(&choice.true_body) || jumps(&choice.false_body),
        _ => false,
    })
}
