//! Instructions that make, keep or read values become calls.

use minijinja::Error;
use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::Value;

use super::refused;

/// Each call takes as much from the stack as the instruction in whose place it stands, and leaves one value.
pub fn weighed<'source>(instructions: &Instructions<'source>) -> Result<Instructions<'source>, Error> {
    let all = || (0..instructions.len() as u32).map_while(|at| instructions.get(at).map(|instruction| (at, instruction)));
    // Where each instruction comes to stand, and the end.
    let mut places = Vec::with_capacity(instructions.len() + 1);
    let mut place = 0;
    for (_, instruction) in all() {
        places.push(place);
        place += match instruction {
            Instruction::EmitRaw(_) | Instruction::PushLoop(_) => 2,
            Instruction::SetAttr(_) => 4,
            _ => 1,
        };
    }
    places.push(place);
    let moved = |target: u32| places.get(target as usize).copied().ok_or_else(|| refused("a jump leads nowhere".to_string()));
    let mut out = Instructions::new(instructions.name(), instructions.source());
    for (at, instruction) in all() {
        let mut add = |instruction| match instructions.get_span(at) {
            Some(span) => out.add_with_span(instruction, span),
            None => match instructions.get_line(at).and_then(|line| u16::try_from(line).ok()) {
                Some(line) => out.add_with_line(instruction, line),
                None => out.add(instruction),
            },
        };
        let call = |name, arguments| Instruction::CallFunction(name, Some(arguments));
        let made = match instruction {
            Instruction::StringConcat => call(" ~", 2),
            Instruction::Add => call(" +", 2),
            Instruction::Mul => call(" *", 2),
            Instruction::Eq => call(" ==", 2),
            Instruction::Ne => call(" !=", 2),
            Instruction::Lt => call(" <", 2),
            Instruction::Lte => call(" <=", 2),
            Instruction::Gt => call(" >", 2),
            Instruction::Gte => call(" >=", 2),
            Instruction::In => call(" in", 2),
            Instruction::GetItem => call(" []", 2),
            Instruction::Slice => call(" [:]", 4),
            // Their number is limited.
            Instruction::BuildList(Some(count)) => call(" list", *count as u16),
            Instruction::BuildMap(pairs) => call(" map", 2 * *pairs as u16),
            Instruction::EmitRaw(text) => {
                add(Instruction::LoadConst(Value::from_safe_string((*text).to_string())));
                Instruction::Emit
            }
            Instruction::PushLoop(flags) => {
                add(call(" loop", 1));
                Instruction::PushLoop(*flags)
            }
            Instruction::SetAttr(name) => {
                // The namespace lies above the value.
                add(Instruction::Swap);
                add(call(" kept", 1));
                add(Instruction::Swap);
                Instruction::SetAttr(name)
            }
            Instruction::Iterate(target) => Instruction::Iterate(moved(*target)?),
            Instruction::Jump(target) => Instruction::Jump(moved(*target)?),
            Instruction::JumpIfFalse(target) => Instruction::JumpIfFalse(moved(*target)?),
            Instruction::JumpIfFalseOrPop(target) => Instruction::JumpIfFalseOrPop(moved(*target)?),
            Instruction::JumpIfTrueOrPop(target) => Instruction::JumpIfTrueOrPop(moved(*target)?),
            Instruction::BuildMacro(name, target, flags) => Instruction::BuildMacro(name, moved(*target)?, *flags),
            other => other.clone(),
        };
        add(made);
    }
    Ok(out)
}
