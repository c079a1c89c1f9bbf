//! Statements.

use minijinja::machinery::{Span, ast};
use minijinja::value::Value;

use super::{Around, Expr, Lower, Op, Stmt, apply, constant, items, line, scopes, spanned, variable};
use crate::model::jinja::Problem;
use crate::model::jinja::call::Takes;
use crate::model::jinja::source::GENERATION;

impl Lower<'_> {
    /// The statements of a scope of its own.
    pub fn scope(&mut self, body: &[ast::Stmt], parameters: &[&str]) -> Result<Vec<Stmt>, Problem> {
        let outside = |name: &str| self.levels.iter().any(|level| level.contains(name));
        let early = scopes::owned_early(body, parameters, &outside);
        let mut known = scopes::known(body);
        known.extend(parameters.iter().map(ToString::to_string));
        self.levels.push(known);
        let was_soft = std::mem::replace(&mut self.is_soft, false);
        let mut statements = Vec::new();
        for name in early {
            let span = Span::default();
            let slot = self.slot(&name, span)?;
            statements.push(set(slot, constant(Value::UNDEFINED, span), span));
        }
        self.statements(body, &mut statements)?;
        self.is_soft = was_soft;
        self.levels.pop();
        Ok(statements)
    }

    fn enclosed(&mut self, around: Around, body: &[ast::Stmt], parameters: &[&str]) -> Result<Vec<Stmt>, Problem> {
        self.around.push(around);
        let statements = self.scope(body, parameters);
        self.around.pop();
        statements
    }

    fn statements(&mut self, body: &[ast::Stmt], out: &mut Vec<Stmt>) -> Result<(), Problem> {
        body.iter().try_for_each(|statement| self.statement(statement, out))
    }

    fn statement(&mut self, statement: &ast::Stmt, out: &mut Vec<Stmt>) -> Result<(), Problem> {
        match statement {
            ast::Stmt::Template(template) => return self.statements(&template.children, out),
            ast::Stmt::EmitRaw(raw) => out.push(emit(constant(raw.raw, raw.span()), raw.span())),
            ast::Stmt::EmitExpr(expr) => {
                let span = expr.span();
                out.push(emit(self.expr(&expr.expr)?, span));
            }
            ast::Stmt::ForLoop(repeat) => self.repeat(repeat, out)?,
            ast::Stmt::IfCond(choice) => {
                let was_soft = std::mem::replace(&mut self.is_soft, true);
                let expr = self.expr(&choice.expr)?;
                let (mut true_body, mut false_body) = (Vec::new(), Vec::new());
                self.statements(&choice.true_body, &mut true_body)?;
                self.statements(&choice.false_body, &mut false_body)?;
                self.is_soft = was_soft;
                out.push(ast::Stmt::IfCond(spanned(ast::IfCond { expr, true_body, false_body }, choice.span())));
            }
            ast::Stmt::WithBlock(with) => out.push(self.with(with)?),
            ast::Stmt::Set(assignment) => {
                let span = assignment.span();
                let value = self.expr(&assignment.expr)?;
                self.assign(&assignment.target, value, span, out)?;
            }
            ast::Stmt::SetBlock(block) => self.set_block(block, out)?,
            ast::Stmt::FilterBlock(block) => out.push(self.filter_block(block)?),
            ast::Stmt::Macro(made) => {
                if self.around.iter().any(|around| *around != Around::Scope) {
                    return self.unsupported("a macro in a loop or in another macro", made.span());
                }
                let value = self.macro_value(made, Some(made.name), Around::Macro, out)?;
                out.push(set(self.slot(made.name, made.span())?, value, made.span()));
            }
            ast::Stmt::CallBlock(block) => {
                let mut body = Vec::new();
                let caller = self.macro_value(&block.macro_decl, None, Around::Caller, &mut body)?;
                let call = self.call(&block.call, None, Some(caller))?;
                body.push(emit(call, block.span()));
                out.push(scoped(body, block.span()));
            }
            ast::Stmt::Continue(_) | ast::Stmt::Break(_) => out.push(self.jump(statement)?),
            ast::Stmt::AutoEscape(block) => return self.unsupported("`{% autoescape %}`", block.span()),
            ast::Stmt::Block(block) => return self.unsupported("`{% block %}`", block.span()),
            ast::Stmt::Import(block) => return self.unsupported("`{% import %}`", block.span()),
            ast::Stmt::FromImport(block) => return self.unsupported("`{% from %}`", block.span()),
            ast::Stmt::Extends(block) => return self.unsupported("`{% extends %}`", block.span()),
            ast::Stmt::Include(block) => return self.unsupported("`{% include %}`", block.span()),
            ast::Stmt::Do(block) => return Err(Problem::malformed("unknown tag `do`").at(line(block.span()))),
        }
        Ok(())
    }

    /// Names, several names, or the attribute of a namespace.
    fn assign(&mut self, target: &ast::Expr, value: Expr, span: Span, out: &mut Vec<Stmt>) -> Result<(), Problem> {
        match target {
            ast::Expr::Var(var) => {
                let slot = self.slot(var.id, span)?;
                out.push(set(slot, value, span));
            }
            ast::Expr::GetAttr(get) => {
                let ast::Expr::Var(var) = &get.expr else { return self.unsupported("an attribute of an attribute that is set", span) };
                let namespace = variable(self.slot(var.id, span)?, span);
                let effect = apply(Op::SetAttribute.name(), namespace, vec![constant(get.name, span), value], span);
                let unused = self.slot(" unused", span)?;
                out.push(set(unused, effect, span));
            }
            _ => {
                let (target, pattern) = self.target(target)?;
                let expr = apply(Op::Unpack.name(), value, vec![constant(pattern, span)], span);
                out.push(ast::Stmt::Set(spanned(ast::Set { target, expr }, span)));
            }
        }
        Ok(())
    }

    /// Names to unpack into, and how they lie within each other.
    fn target(&mut self, target: &ast::Expr) -> Result<(Expr, Value), Problem> {
        let span = target.span();
        match target {
            ast::Expr::Var(var) => Ok((variable(self.slot(var.id, span)?, span), Value::from(0))),
            ast::Expr::List(list) => {
                let (mut targets, mut patterns) = (Vec::new(), Vec::new());
                for item in &list.items {
                    let (target, pattern) = self.target(item)?;
                    targets.push(target);
                    patterns.push(pattern);
                }
                Ok((items(targets, span), Value::from(patterns)))
            }
            _ => self.unsupported("an attribute among several names that are set", span),
        }
    }

    fn repeat(&mut self, repeat: &ast::Spanned<ast::ForLoop>, out: &mut Vec<Stmt>) -> Result<(), Problem> {
        let span = repeat.span();
        let recursive = repeat.recursive;
        if recursive && (repeat.filter_expr.is_some() || !repeat.else_body.is_empty()) {
            return self.unsupported("a recursive loop with `if` or `else`", span);
        }
        if recursive && self.around.contains(&Around::Loop { recursive: true }) {
            return self.unsupported("a recursive loop in another one", span);
        }
        let mut names = Vec::new();
        target_names(&repeat.target, &mut names);
        let (target, pattern) = self.target(&repeat.target)?;
        if recursive && matches!(target, ast::Expr::List(_)) {
            return self.unsupported("a recursive loop with several names", span);
        }
        let args = if matches!(target, ast::Expr::List(_)) { vec![constant(pattern, span)] } else { Vec::new() };
        let iter = apply(Op::Iterate.name(), self.expr(&repeat.iter)?, args, span);
        let filter_expr = match &repeat.filter_expr {
            Some(filter) => Some(self.loop_filter(filter, &names, span)?),
            None => None,
        };
        let mut body = self.enclosed(Around::Loop { recursive }, &repeat.body, &names)?;
        let mut else_body = self.enclosed(Around::Scope, &repeat.else_body, &[])?;
        // Jinja2 takes a loop for one that has walked over something when its body has come to an end.
        let mut behind = None;
        if !else_body.is_empty() && scopes::jumps(&repeat.body) {
            let flag = self.temporary(span)?;
            let unused = self.slot(" unused", span)?;
            out.push(set(flag, apply(Op::Flag.name(), constant((), span), Vec::new(), span), span));
            let ended = apply(Op::SetAttribute.name(), variable(flag, span), vec![constant("ended", span), constant(true, span)], span);
            body.push(set(unused, ended, span));
            let has_ended = apply(Op::Attribute.name(), variable(flag, span), vec![constant("ended", span)], span);
            let expr = ast::Expr::UnaryOp(spanned(ast::UnaryOp { op: ast::UnaryOpKind::Not, expr: has_ended }, span));
            let true_body = vec![scoped(std::mem::take(&mut else_body), span)];
            behind = Some(ast::Stmt::IfCond(spanned(ast::IfCond { expr, true_body, false_body: Vec::new() }, span)));
        }
        let else_body = if else_body.is_empty() { Vec::new() } else { vec![scoped(else_body, span)] };
        let lowered = ast::ForLoop { target, iter, filter_expr, recursive, body, else_body };
        out.push(ast::Stmt::ForLoop(spanned(lowered, span)));
        out.extend(behind);
        Ok(())
    }

    /// Within a loop's `if`, `loop` is none of it.
    fn loop_filter(&mut self, filter: &ast::Expr, names: &[&str], span: Span) -> Result<Expr, Problem> {
        let mut loops = false;
        scopes::names_of(filter, &mut |name| loops |= name == "loop");
        if loops {
            return self.unsupported("`loop` in the condition of a loop", span);
        }
        self.levels.push(names.iter().map(ToString::to_string).collect());
        let was_soft = std::mem::replace(&mut self.is_soft, false);
        let filter = self.expr(filter);
        self.is_soft = was_soft;
        self.levels.pop();
        filter
    }

    /// All values are those that the names have outside.
    fn with(&mut self, with: &ast::Spanned<ast::WithBlock>) -> Result<Stmt, Problem> {
        let span = with.span();
        let (mut values, mut names, mut assignments) = (Vec::new(), Vec::new(), Vec::new());
        for (target, value) in &with.assignments {
            let ast::Expr::Var(var) = target else { return self.unsupported("`{% with %}` of several names at once", span) };
            let held = self.temporary(span)?;
            values.push((variable(held, span), self.expr(value)?));
            names.push(var.id);
            assignments.push((variable(self.slot(var.id, span)?, span), variable(held, span)));
        }
        let body = self.enclosed(Around::Scope, &with.body, &names)?;
        let inner = ast::Stmt::WithBlock(spanned(ast::WithBlock { assignments, body }, span));
        Ok(ast::Stmt::WithBlock(spanned(ast::WithBlock { assignments: values, body: vec![inner] }, span)))
    }

    fn set_block(&mut self, block: &ast::Spanned<ast::SetBlock>, out: &mut Vec<Stmt>) -> Result<(), Problem> {
        let span = block.span();
        let filter = block.filter.as_ref().map(|filter| self.expr(filter)).transpose()?;
        let body = vec![scoped(self.enclosed(Around::Scope, &block.body, &[])?, span)];
        let target = match &block.target {
            ast::Expr::Var(var) => self.slot(var.id, span)?,
            _ => self.temporary(span)?,
        };
        out.push(ast::Stmt::SetBlock(spanned(ast::SetBlock { target: variable(target, span), filter, body }, span)));
        if !matches!(block.target, ast::Expr::Var(_)) {
            self.assign(&block.target, variable(target, span), span, out)?;
        }
        Ok(())
    }

    fn filter_block(&mut self, block: &ast::Spanned<ast::FilterBlock>) -> Result<Stmt, Problem> {
        let span = block.span();
        let filter = match &block.filter {
            ast::Expr::Filter(filter) if filter.name == GENERATION && filter.expr.is_none() => {
                self.has_generation = true;
                ast::Expr::Filter(spanned(ast::Filter { name: Op::Generation.name(), expr: None, args: Vec::new() }, span))
            }
            filter => self.expr(filter)?,
        };
        let body = vec![scoped(self.enclosed(Around::Scope, &block.body, &[])?, span)];
        Ok(ast::Stmt::FilterBlock(spanned(ast::FilterBlock { filter, body }, span)))
    }

    /// `break` and `continue` leave no scope but the loop's.
    fn jump(&self, statement: &ast::Stmt) -> Result<Stmt, Problem> {
        let (span, lowered) = match statement {
            ast::Stmt::Continue(node) => (node.span(), ast::Stmt::Continue(spanned(ast::Continue, node.span()))),
            ast::Stmt::Break(node) => (node.span(), ast::Stmt::Break(spanned(ast::Break, node.span()))),
            _ => return Err(Problem::malformed("no jump")),
        };
        match self.around.last() {
            Some(Around::Loop { .. }) => Ok(lowered),
            _ => self.unsupported("`break` or `continue` out of a block within a loop", span),
        }
    }

    /// A macro, made by the statements that are added, as a value.
    fn macro_value(
        &mut self,
        made: &ast::Spanned<ast::Macro>,
        name: Option<&str>,
        around: Around,
        out: &mut Vec<Stmt>,
    ) -> Result<Expr, Problem> {
        let span = made.span();
        let parameters: Vec<&str> =
            made.args.iter().filter_map(|arg| if let ast::Expr::Var(var) = arg { Some(var.id) } else { None }).collect();
        if let Some(special) = parameters.iter().find(|name| ["caller", "varargs", "kwargs"].contains(name)) {
            return self.unsupported(format!("a parameter called `{special}`"), span);
        }
        if (1..parameters.len()).any(|place| parameters[..place].contains(&parameters[place])) {
            return Err(Problem::malformed("two parameters of a macro have one name").at(line(span)));
        }
        let used = scopes::read(&made.body, &[]);
        let takes = Takes { caller: used.contains("caller"), varargs: used.contains("varargs"), kwargs: used.contains("kwargs") };
        let all: Vec<&str> = parameters.iter().copied().chain(["caller", "varargs", "kwargs"]).collect();
        let mut body = self.parameters(made, &parameters, span)?;
        body.extend(self.enclosed(around, &made.body, &all)?);
        self.captures(made, &mut body, span)?;
        let held = self.temporary(span)?;
        let mut args = Vec::new();
        for parameter in &parameters {
            let name = format!(" {parameter}");
            args.push(variable(self.slot(&name, span)?, span));
        }
        for special in ["caller", "varargs", "kwargs"] {
            args.push(variable(self.slot(special, span)?, span));
        }
        out.push(ast::Stmt::Macro(spanned(ast::Macro { name: held, args, defaults: Vec::new(), body }, span)));
        let names = Value::from(parameters.iter().map(|name| Value::from(*name)).collect::<Vec<_>>());
        let name = name.map_or(Value::from(()), Value::from);
        let args = vec![constant(name, span), constant(names, span), constant(takes.bits(), span)];
        Ok(apply(Op::Macro.name(), variable(held, span), args, span))
    }

    /// Gives each parameter what was given for it, or its default, one after the other: a default may read the parameters before it.
    fn parameters(&mut self, made: &ast::Macro, parameters: &[&str], span: Span) -> Result<Vec<Stmt>, Problem> {
        let mut body = Vec::new();
        for parameter in parameters {
            let slot = self.slot(parameter, span)?;
            body.push(set(slot, constant(Value::UNDEFINED, span), span));
        }
        self.levels.push(parameters.iter().map(ToString::to_string).collect());
        let was_soft = std::mem::replace(&mut self.is_soft, false);
        let first_default = parameters.len().saturating_sub(made.defaults.len());
        for (place, parameter) in parameters.iter().enumerate() {
            let given = variable(self.slot(&format!(" {parameter}"), span)?, span);
            let again = variable(self.slot(&format!(" {parameter}"), span)?, span);
            let default = match place.checked_sub(first_default).and_then(|place| made.defaults.get(place)) {
                Some(default) => self.expr(default)?,
                None => constant(Value::UNDEFINED, span),
            };
            let test_expr = apply(Op::IsGiven.name(), given, Vec::new(), span);
            let choice = ast::IfExpr { test_expr, true_expr: again, false_expr: Some(default) };
            body.push(set(self.slot(parameter, span)?, ast::Expr::IfExpr(spanned(choice, span)), span));
        }
        self.is_soft = was_soft;
        self.levels.pop();
        Ok(body)
    }

    /// The engine keeps for a macro the names that it reads before it sets them; here it reads all of them first, in a branch that is never taken.
    fn captures(&mut self, made: &ast::Macro, body: &mut Vec<Stmt>, span: Span) -> Result<(), Problem> {
        let mut reads = Vec::new();
        for name in scopes::read(&made.body, &made.defaults) {
            if !["loop", "self", "super", "caller", "varargs", "kwargs"].contains(&name) {
                reads.push(emit(variable(self.slot(name, span)?, span), span));
            }
        }
        let never = ast::IfCond { expr: constant(false, span), true_body: reads, false_body: Vec::new() };
        body.insert(0, ast::Stmt::IfCond(spanned(never, span)));
        Ok(())
    }
}

fn target_names<'a>(target: &ast::Expr<'a>, names: &mut Vec<&'a str>) {
    match target {
        ast::Expr::Var(var) => names.push(var.id),
        ast::Expr::List(list) => list.items.iter().for_each(|item| target_names(item, names)),
        _ => {}
    }
}

fn emit(expr: Expr, span: Span) -> Stmt {
    ast::Stmt::EmitExpr(spanned(ast::EmitExpr { expr }, span))
}

fn set(slot: &'static str, expr: Expr, span: Span) -> Stmt {
    ast::Stmt::Set(spanned(ast::Set { target: variable(slot, span), expr }, span))
}

/// Statements whose names stay with them.
fn scoped(body: Vec<Stmt>, span: Span) -> Stmt {
    ast::Stmt::WithBlock(spanned(ast::WithBlock { assignments: Vec::new(), body }, span))
}
