//! Expressions.

use minijinja::machinery::{Span, ast};
use minijinja::value::Value;

use super::{Expr, Lower, OPERATORS, Op, RELATIONS, SLOTS, apply, constant, items, line, spanned, variable};
use crate::model::jinja::call::Passing;
use crate::model::jinja::operate::{Operator, Relation};
use crate::model::jinja::{Problem, filters, tests};

impl Lower<'_> {
    pub fn expr(&mut self, expr: &ast::Expr) -> Result<Expr, Problem> {
        let span = expr.span();
        match expr {
            ast::Expr::Var(var) => self.name(var.id, span),
            ast::Expr::Const(value) => self.constant(value),
            ast::Expr::UnaryOp(unary) => match unary.op {
                ast::UnaryOpKind::Not => {
                    let expr = self.expr(&unary.expr)?;
                    Ok(ast::Expr::UnaryOp(spanned(ast::UnaryOp { op: ast::UnaryOpKind::Not, expr }, span)))
                }
                ast::UnaryOpKind::Neg => Ok(apply(Op::Negate.name(), self.expr(&unary.expr)?, Vec::new(), span)),
            },
            ast::Expr::BinOp(binary) => self.binary(binary),
            ast::Expr::Compare(compare) => self.compare(compare),
            ast::Expr::IfExpr(choice) => self.choice(choice),
            ast::Expr::Filter(filter) => self.filter(filter),
            ast::Expr::Test(test) => self.test(test),
            ast::Expr::GetAttr(_) | ast::Expr::GetItem(_) | ast::Expr::Slice(_) | ast::Expr::Call(_) => self.signed(expr),
            ast::Expr::List(list) => self.list(list),
            ast::Expr::Map(map) => {
                let mut parts = Vec::new();
                for (key, value) in map.keys.iter().zip(&map.values) {
                    parts.extend([self.expr(key)?, self.expr(value)?]);
                }
                Ok(apply(Op::Dict.name(), items(parts, span), Vec::new(), span))
            }
        }
    }

    fn name(&mut self, name: &str, span: Span) -> Result<Expr, Problem> {
        match name {
            "loop" if self.has_loop() => Ok(variable("loop", span)),
            "self" | "super" => self.unsupported(format!("`{name}`"), span),
            _ => Ok(variable(self.slot(name, span)?, span)),
        }
    }

    fn binary(&mut self, binary: &ast::Spanned<ast::BinOp>) -> Result<Expr, Problem> {
        use ast::BinOpKind::{Add, Concat, Div, Eq, FloorDiv, Gt, Gte, In, Lt, Lte, Mul, Ne, Pow, Rem, ScAnd, ScOr, Sub};
        let span = binary.span();
        let name = match binary.op {
            ScAnd | ScOr => return self.logic(binary),
            Concat => return self.concatenation(binary),
            Eq => name_of(Relation::Eq),
            Ne => name_of(Relation::Ne),
            Lt => name_of(Relation::Lt),
            Lte => name_of(Relation::Le),
            Gt => name_of(Relation::Gt),
            Gte => name_of(Relation::Ge),
            In => name_of(Relation::In),
            Add => sign_of(Operator::Add),
            Sub => sign_of(Operator::Sub),
            Mul => sign_of(Operator::Mul),
            Div => sign_of(Operator::Div),
            FloorDiv => sign_of(Operator::FloorDiv),
            Rem => sign_of(Operator::Rem),
            Pow => sign_of(Operator::Pow),
        };
        let (left, right) = (self.expr(&binary.left)?, self.expr(&binary.right)?);
        Ok(apply(name, left, vec![right], span))
    }

    /// `and` and `or` give one of their sides. Of constants the compiler would make true or false.
    fn logic(&mut self, binary: &ast::Spanned<ast::BinOp>) -> Result<Expr, Problem> {
        let (left, right) = (self.expr(&binary.left)?, self.expr(&binary.right)?);
        if let ast::Expr::Const(value) = &left {
            let takes_right = value.value.is_true() == matches!(binary.op, ast::BinOpKind::ScAnd);
            return Ok(if takes_right { right } else { left });
        }
        Ok(ast::Expr::BinOp(spanned(ast::BinOp { op: binary.op, left, right }, binary.span())))
    }

    /// `a ~ b ~ c` at once.
    fn concatenation(&mut self, binary: &ast::Spanned<ast::BinOp>) -> Result<Expr, Problem> {
        let mut parts = vec![self.expr(&binary.right)?];
        let mut left = &binary.left;
        while let ast::Expr::BinOp(inner) = left {
            if !matches!(inner.op, ast::BinOpKind::Concat) {
                break;
            }
            parts.push(self.expr(&inner.right)?);
            left = &inner.left;
        }
        parts.reverse();
        Ok(apply(Op::Concatenate.name(), self.expr(left)?, parts, binary.span()))
    }

    /// `a < b < c`: what stands between is looked at once. If that is more than a name, all sides are looked at, even where the first ones decide.
    fn compare(&mut self, compare: &ast::Spanned<ast::Compare>) -> Result<Expr, Problem> {
        let span = compare.span();
        let is_simple = |part: &ast::CompareOp| matches!(part.expr, ast::Expr::Var(_) | ast::Expr::Const(_));
        if compare.ops.iter().rev().skip(1).all(is_simple) {
            return self.compare_in_turn(compare);
        }
        let mut parts = Vec::new();
        for part in &compare.ops {
            let relation = relation_of(part.op);
            let place = RELATIONS.iter().position(|(_, known)| *known == relation).unwrap_or(0);
            parts.extend([constant(place, span), self.expr(&part.expr)?]);
        }
        Ok(apply(Op::Chain.name(), self.expr(&compare.expr)?, parts, span))
    }

    /// `a < b and b < c`
    fn compare_in_turn(&mut self, compare: &ast::Spanned<ast::Compare>) -> Result<Expr, Problem> {
        let span = compare.span();
        let mut before = &compare.expr;
        let mut so_far = None;
        for part in &compare.ops {
            let right = apply(name_of(relation_of(part.op)), self.expr(before)?, vec![self.expr(&part.expr)?], span);
            so_far = Some(match so_far {
                None => right,
                Some(left) => ast::Expr::BinOp(spanned(ast::BinOp { op: ast::BinOpKind::ScAnd, left, right }, span)),
            });
            before = &part.expr;
        }
        so_far.map_or_else(|| self.expr(before), Ok)
    }

    fn choice(&mut self, choice: &ast::Spanned<ast::IfExpr>) -> Result<Expr, Problem> {
        let was_soft = std::mem::replace(&mut self.is_soft, true);
        let span = choice.span();
        let test_expr = self.expr(&choice.test_expr)?;
        let true_expr = self.expr(&choice.true_expr)?;
        let false_expr = match &choice.false_expr {
            Some(expr) => self.expr(expr)?,
            None => constant(Value::UNDEFINED, span),
        };
        self.is_soft = was_soft;
        Ok(ast::Expr::IfExpr(spanned(ast::IfExpr { test_expr, true_expr, false_expr: Some(false_expr) }, span)))
    }

    fn filter(&mut self, filter: &ast::Spanned<ast::Filter>) -> Result<Expr, Problem> {
        let span = filter.span();
        let expr = filter.expr.as_ref().map(|expr| self.expr(expr)).transpose()?;
        let args = self.arguments(&filter.args, None, span)?;
        let args = args.into_iter().map(ast::CallArg::Pos).collect();
        let name = match filters::place(filter.name).and_then(|place| SLOTS.filters.get(place)) {
            Some(name) => name,
            None => return self.unknown("filter", filter.name, span),
        };
        Ok(ast::Expr::Filter(spanned(ast::Filter { name, expr, args }, span)))
    }

    fn test(&mut self, test: &ast::Spanned<ast::Test>) -> Result<Expr, Problem> {
        let span = test.span();
        let of = self.expr(&test.expr)?;
        let args = self.arguments(&test.args, None, span)?;
        match tests::place(test.name).and_then(|place| SLOTS.tests.get(place)) {
            Some(name) => Ok(apply(name, of, args, span)),
            None => self.unknown("test", test.name, span),
        }
    }

    /// In a branch it is an error when it is reached; elsewhere Jinja2 does not even compile it.
    fn unknown(&self, what: &str, name: &str, span: Span) -> Result<Expr, Problem> {
        let why = format!("no {what} named `{}`", name.chars().take(40).collect::<String>());
        match self.is_soft {
            true => Ok(apply(Op::Raise.name(), constant(why, span), Vec::new(), span)),
            false => Err(Problem::malformed(why).at(line(span))),
        }
    }

    fn list(&mut self, list: &ast::Spanned<ast::List>) -> Result<Expr, Problem> {
        let span = list.span();
        let parts = list.items.iter().map(|item| self.expr(item)).collect::<Result<Vec<_>, _>>()?;
        // The parser makes no difference: a list begins with its bracket, and a tuple without brackets is told by its first part, which stands before.
        let starts_inside = list.items.first().is_none_or(|first| first.span().start_offset >= span.start_offset);
        let op = if self.begins_with(span, '[') && starts_inside { Op::List } else { Op::Tuple };
        Ok(apply(op.name(), items(parts, span), Vec::new(), span))
    }

    /// What follows a sign: the parser has bound the sign too tightly in `-x.y`.
    fn signed(&mut self, expr: &ast::Expr) -> Result<Expr, Problem> {
        let mut signs = 0;
        let mut base = innermost(expr);
        if let Some((postfix, inner)) = base
            && matches!(inner, ast::Expr::UnaryOp(unary) if matches!(unary.op, ast::UnaryOpKind::Neg))
            && self.begins_with(postfix.span(), '-')
        {
            let mut inner = inner;
            while let ast::Expr::UnaryOp(unary) = inner {
                if !matches!(unary.op, ast::UnaryOpKind::Neg) || !self.begins_with(unary.span(), '-') {
                    break;
                }
                signs += 1;
                inner = &unary.expr;
            }
            base = Some((postfix, inner));
        }
        let base = base.map(|(_, base)| base).filter(|_| signs > 0);
        let mut lowered = self.postfix(expr, base)?;
        for _ in 0..signs {
            lowered = apply(Op::Negate.name(), lowered, Vec::new(), expr.span());
        }
        Ok(lowered)
    }

    /// Attributes, items and calls of a base, or of another one in its place.
    fn postfix(&mut self, expr: &ast::Expr, base: Option<&ast::Expr>) -> Result<Expr, Problem> {
        let span = expr.span();
        match expr {
            ast::Expr::GetAttr(get) => {
                if is_loop(&get.expr)
                    && self.has_loop()
                    && let Some(depth) = self.depth(get.name)
                {
                    return Ok(constant(depth, span));
                }
                let of = self.of(&get.expr, base)?;
                Ok(match (&get.expr, get.name) {
                    // The engine's own counting: one loop cannot be taken for another here.
                    (expr, "depth" | "depth0") if is_loop(expr) && self.has_loop() => {
                        let name = if get.name == "depth" { "depth" } else { "depth0" };
                        ast::Expr::GetAttr(spanned(ast::GetAttr { expr: of, name }, span))
                    }
                    _ => apply(Op::Attribute.name(), of, vec![constant(get.name, span)], span),
                })
            }
            ast::Expr::GetItem(get) => {
                let (of, key) = (self.of(&get.expr, base)?, self.expr(&get.subscript_expr)?);
                Ok(apply(Op::Item.name(), of, vec![key], span))
            }
            ast::Expr::Slice(slice) => {
                let of = self.of(&slice.expr, base)?;
                let mut bounds = Vec::new();
                for bound in [&slice.start, &slice.stop, &slice.step] {
                    bounds.push(bound.as_ref().map_or_else(|| Ok(constant((), span)), |bound| self.expr(bound))?);
                }
                Ok(apply(Op::Slice.name(), of, bounds, span))
            }
            ast::Expr::Call(call) => self.call(call, base, None),
            other => self.expr(other),
        }
    }

    fn of(&mut self, expr: &ast::Expr, base: Option<&ast::Expr>) -> Result<Expr, Problem> {
        match (innermost(expr), base) {
            (Some(_), _) => self.postfix(expr, base),
            (None, Some(base)) => self.expr(base),
            (None, None) => self.expr(expr),
        }
    }

    /// How deep a loop is that does not call itself.
    fn depth(&self, name: &str) -> Option<u32> {
        let innermost = self.around.iter().rev().find(|around| matches!(around, super::Around::Loop { .. }));
        match (innermost, name) {
            (Some(super::Around::Loop { recursive: false }), "depth") => Some(1),
            (Some(super::Around::Loop { recursive: false }), "depth0") => Some(0),
            _ => None,
        }
    }

    /// `callee(…)`, with the body of a `{% call %}` if there is one.
    pub fn call(&mut self, call: &ast::Spanned<ast::Call>, base: Option<&ast::Expr>, caller: Option<Expr>) -> Result<Expr, Problem> {
        let span = call.span();
        match &call.expr {
            ast::Expr::Var(var) if var.id == "loop" && self.has_loop() => {
                let [ast::CallArg::Pos(over)] = call.args.as_slice() else {
                    return self.unsupported("`loop()` with other arguments", span);
                };
                let over = apply(Op::Iterate.name(), self.expr(over)?, Vec::new(), span);
                let expr = variable("loop", span);
                Ok(ast::Expr::Call(spanned(ast::Call { expr, args: vec![ast::CallArg::Pos(over)] }, span)))
            }
            ast::Expr::GetAttr(get) => {
                let of = self.of(&get.expr, base)?;
                let mut args = vec![constant(get.name, span)];
                args.extend(self.arguments(&call.args, caller, span)?);
                Ok(apply(Op::CallMethod.name(), of, args, span))
            }
            callee => {
                let callee = self.of(callee, base)?;
                let args = self.arguments(&call.args, caller, span)?;
                Ok(apply(Op::Call.name(), callee, args, span))
            }
        }
    }

    /// Arguments by place; those with a name, or spread from a list, are packed into one.
    fn arguments(&mut self, args: &[ast::CallArg], caller: Option<Expr>, span: Span) -> Result<Vec<Expr>, Problem> {
        let mut passed: Vec<(Passing, &str, Expr)> = Vec::new();
        for arg in args {
            passed.push(match arg {
                ast::CallArg::Pos(expr) => (Passing::Plain, "", self.expr(expr)?),
                ast::CallArg::Kwarg(name, expr) => (Passing::Named, name, self.expr(expr)?),
                ast::CallArg::PosSplat(expr) => (Passing::List, "", self.expr(expr)?),
                ast::CallArg::KwargSplat(expr) => (Passing::Dict, "", self.expr(expr)?),
            });
        }
        passed.extend(caller.map(|caller| (Passing::Named, "caller", caller)));
        if passed.iter().any(|(passing, _, _)| matches!(passing, Passing::List | Passing::Dict)) {
            let place = |passing: Passing| Passing::ALL.iter().position(|known| *known == passing).unwrap_or(0);
            let part = |(passing, name, expr): (Passing, &str, Expr)| [constant(place(passing), span), constant(name, span), expr];
            let parts = passed.into_iter().flat_map(part).collect();
            return Ok(vec![apply(Op::Spread.name(), items(parts, span), Vec::new(), span)]);
        }
        let (mut positional, mut named) = (Vec::new(), Vec::new());
        let mut known = Vec::new();
        for (passing, name, expr) in passed {
            if passing == Passing::Plain {
                positional.push(expr);
                continue;
            }
            if known.contains(&name) {
                return Err(Problem::malformed(format!("the argument `{name}` is given twice")).at(line(span)));
            }
            known.push(name);
            named.extend([constant(name, span), expr]);
        }
        if !named.is_empty() {
            positional.push(apply(Op::Named.name(), items(named, span), Vec::new(), span));
        }
        Ok(positional)
    }
}

fn relation_of(op: ast::CompareOpKind) -> Relation {
    match op {
        ast::CompareOpKind::Eq => Relation::Eq,
        ast::CompareOpKind::Ne => Relation::Ne,
        ast::CompareOpKind::Lt => Relation::Lt,
        ast::CompareOpKind::Lte => Relation::Le,
        ast::CompareOpKind::Gt => Relation::Gt,
        ast::CompareOpKind::Gte => Relation::Ge,
        ast::CompareOpKind::In => Relation::In,
        ast::CompareOpKind::NotIn => Relation::NotIn,
    }
}

fn name_of(relation: Relation) -> &'static str {
    RELATIONS.iter().find(|(_, known)| *known == relation).map_or("", |(name, _)| name)
}

fn sign_of(operator: Operator) -> &'static str {
    OPERATORS.iter().find(|(_, known)| *known == operator).map_or("", |(name, _)| name)
}

fn is_loop(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Var(var) if var.id == "loop")
}

/// The first attribute, item or call of a chain of them, and what it is of.
fn innermost<'e, 'a>(expr: &'e ast::Expr<'a>) -> Option<(&'e ast::Expr<'a>, &'e ast::Expr<'a>)> {
    let mut found = None;
    let mut next = expr;
    loop {
        let of = match next {
            ast::Expr::GetAttr(get) => &get.expr,
            ast::Expr::GetItem(get) => &get.expr,
            ast::Expr::Slice(slice) => &slice.expr,
            ast::Expr::Call(call) => &call.expr,
            _ => return found,
        };
        found = Some((next, of));
        next = of;
    }
}
