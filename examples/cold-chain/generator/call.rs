//! A call: the one answer that a command has, written as compact JSON.

use std::fmt;

use super::dice::Dice;

pub struct Call {
    pub name: &'static str,
    pub slots: Vec<(&'static str, Slot)>,
}

#[derive(Clone, Copy)]
pub enum Slot {
    Unit(Unit),
    AllUnits,
    Celsius(i64),
    Minutes(i64),
    Offset(i64),
    Locked(bool),
    /// One of these words.
    Word(&'static str, &'static [&'static str]),
}

#[derive(Clone, Copy, PartialEq)]
pub struct Unit {
    pub kind: Kind,
    pub number: i64,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Fridge,
    Freezer,
    Box,
    Room,
}

pub const KINDS: [Kind; 4] = [Kind::Fridge, Kind::Freezer, Kind::Box, Kind::Room];

/// The durations that people ask for, in minutes.
pub const MINUTES: [i64; 12] = [5, 10, 15, 20, 25, 30, 45, 60, 90, 120, 180, 240];

impl Unit {
    pub fn any(dice: &mut Dice) -> Unit {
        Unit { kind: dice.pick(&KINDS), number: dice.between(1, 9) }
    }

    fn other(self, dice: &mut Dice) -> Unit {
        if dice.chance(70) {
            Unit { number: dice.other(&[1, 2, 3, 4, 5, 6, 7, 8, 9], self.number), ..self }
        } else {
            Unit { kind: dice.other(&KINDS, self.kind), ..self }
        }
    }
}

impl Call {
    pub fn new(name: &'static str, slots: Vec<(&'static str, Slot)>) -> Call {
        Call { name, slots }
    }

    /// With one slot changed. A call without slots stays as it is.
    pub fn with_a_mistake(mut self, dice: &mut Dice) -> Call {
        if !self.slots.is_empty() {
            let at = dice.below(self.slots.len() as u64) as usize;
            self.slots[at].1 = self.slots[at].1.mistaken(dice);
        }
        self
    }
}

impl Slot {
    fn mistaken(self, dice: &mut Dice) -> Slot {
        match self {
            Slot::Unit(unit) => Slot::Unit(unit.other(dice)),
            Slot::AllUnits => Slot::Unit(Unit::any(dice)),
            Slot::Celsius(value) if value != 0 && dice.chance(20) => Slot::Celsius(-value),
            Slot::Celsius(value) => Slot::Celsius(value + dice.pick(&[-3, -2, -1, 1, 2, 3])),
            Slot::Minutes(value) => Slot::Minutes(dice.other(&MINUTES, value)),
            Slot::Offset(value) => Slot::Offset(-value),
            Slot::Locked(locked) => Slot::Locked(!locked),
            Slot::Word(word, words) => Slot::Word(dice.other(words, word), words),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{\"call\":\"{}\"", self.name)?;
        for (name, slot) in &self.slots {
            write!(f, ",\"{name}\":{slot}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Unit(unit) => write!(f, "\"{}-{}\"", unit.kind.name(), unit.number),
            Slot::AllUnits => f.write_str("\"all\""),
            Slot::Celsius(n) | Slot::Minutes(n) | Slot::Offset(n) => write!(f, "{n}"),
            Slot::Locked(locked) => write!(f, "{locked}"),
            Slot::Word(word, _) => write!(f, "\"{word}\""),
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Fridge => "fridge",
            Kind::Freezer => "freezer",
            Kind::Box => "box",
            Kind::Room => "room",
        }
    }
}
