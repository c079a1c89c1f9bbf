//! How units, numbers, temperatures and durations are spoken, and what a recogniser makes of it: fillers, homophones, self-corrections.

use super::call::{Kind, Unit};
use super::dice::Dice;

/// What stands for `{unit}`, `{temp}` … in a phrasing.
#[derive(Default)]
pub struct Words(Vec<(&'static str, String)>);

impl Words {
    pub fn with(mut self, name: &'static str, spoken: impl Into<String>) -> Words {
        self.0.push((name, spoken.into()));
        self
    }

    pub fn fill(&self, phrasing: &str) -> String {
        let filled = self.0.iter().fold(phrasing.to_string(), |text, (name, spoken)| text.replace(&format!("{{{name}}}"), spoken));
        assert!(!filled.contains('{'), "`{phrasing}` wants a word that its family does not speak");
        filled
    }
}

/// Something like every tenth unit is first named wrongly.
pub fn unit(unit: Unit, dice: &mut Dice) -> String {
    let right = plain_unit(unit, dice);
    if !dice.chance(9) {
        return right;
    }
    let wrong = loop {
        let wrong = Unit::any(dice);
        if wrong != unit {
            break plain_unit(wrong, dice);
        }
    };
    format!("{wrong} {} {right}", correction(dice))
}

fn plain_unit(unit: Unit, dice: &mut Dice) -> String {
    let names: &[&str] = match unit.kind {
        Kind::Fridge => &["fridge", "fridge", "refrigerator", "vaccine fridge"],
        Kind::Freezer => &["freezer", "freezer", "deep freezer", "ice freezer"],
        Kind::Box => &["cold box", "cool box", "box", "carrier"],
        Kind::Room => &["cold room", "walk in", "room", "chamber"],
    };
    let name = dice.pick(names);
    let number = number(unit.number, dice);
    if dice.chance(15) { format!("{name} number {number}") } else { format!("{name} {number}") }
}

fn correction(dice: &mut Dice) -> &'static str {
    dice.pick(&["no sorry", "i mean", "no wait", "sorry i meant", "no"])
}

/// In words or digits, now and then as a word that sounds alike.
pub fn number(n: i64, dice: &mut Dice) -> String {
    if dice.chance(35) {
        return n.to_string();
    }
    let homophones: &[&str] = match n {
        1 => &["won"],
        2 => &["to", "too"],
        4 => &["for"],
        8 => &["ate"],
        _ => &[],
    };
    if !homophones.is_empty() && dice.chance(12) { dice.pick(homophones).to_string() } else { in_words(n) }
}

/// 0 … 999
fn in_words(n: i64) -> String {
    const SMALL: [&str; 20] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ];
    const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
    let digit = |n: i64| n as usize;
    match n {
        0..20 => SMALL[digit(n)].to_string(),
        20..100 if n % 10 == 0 => TENS[digit(n / 10)].to_string(),
        20..100 => format!("{} {}", TENS[digit(n / 10)], SMALL[digit(n % 10)]),
        _ if n % 100 == 0 => format!("{} hundred", in_words(n / 100)),
        _ => format!("{} hundred {}", in_words(n / 100), in_words(n % 100)),
    }
}

/// A temperature in Celsius or, seldom, in Fahrenheit to the nearest degree; sometimes corrected.
pub fn temperature(celsius: i64, dice: &mut Dice) -> String {
    let right = plain_temperature(celsius, dice);
    if !dice.chance(6) {
        return right;
    }
    let wrong = number((celsius + dice.pick(&[-2, -1, 1, 2])).abs(), dice);
    format!("{wrong} {} {right}", correction(dice))
}

fn plain_temperature(celsius: i64, dice: &mut Dice) -> String {
    if dice.chance(10) {
        let ending = dice.pick(&["fahrenheit", "degrees fahrenheit"]);
        return format!("{} {ending}", signed(fahrenheit(celsius), dice));
    }
    let ending = dice.pick(&["", "", " degrees", " degrees", " celsius", " degrees celsius"]);
    if celsius < 0 && dice.chance(15) {
        return format!("{}{ending} below zero", number(-celsius, dice));
    }
    format!("{}{ending}", signed(celsius, dice))
}

fn signed(n: i64, dice: &mut Dice) -> String {
    if n >= 0 {
        return number(n, dice);
    }
    if dice.chance(30) {
        return n.to_string();
    }
    let sign = dice.pick(&["minus", "minus", "negative"]);
    format!("{sign} {}", number(-n, dice))
}

/// To the nearest degree, in whole numbers only: floats need not round alike everywhere.
fn fahrenheit(celsius: i64) -> i64 {
    (celsius * 18 + 5).div_euclid(10) + 32
}

pub fn duration(minutes: i64, dice: &mut Dice) -> String {
    let in_hours: &[&str] = match minutes {
        15 => &["a quarter of an hour"],
        30 => &["half an hour", "half an hour", "a half hour"],
        45 => &["three quarters of an hour"],
        60 => &["an hour", "one hour"],
        90 => &["an hour and a half", "one and a half hours"],
        _ => &[],
    };
    if !in_hours.is_empty() && dice.chance(60) {
        return dice.pick(in_hours).to_string();
    }
    if minutes % 60 == 0 && minutes > 60 && dice.chance(75) {
        return format!("{} hours", number(minutes / 60, dice));
    }
    format!("{} {}", number(minutes, dice), dice.pick(&["minutes", "minutes", "mins"]))
}

/// As people speak: something before, something behind, a pause anywhere.
pub fn with_fillers(command: &str, dice: &mut Dice) -> String {
    let mut words: Vec<&str> = command.split_whitespace().collect();
    if dice.chance(10) {
        let at = dice.below(words.len() as u64) as usize;
        words.insert(at, dice.pick(&["um", "uh", "er"]));
    }
    if dice.chance(25) {
        words.insert(0, dice.pick(&["please", "hey", "okay", "can you", "listen", "right", "um"]));
    }
    if dice.chance(12) {
        words.push(dice.pick(&["please", "thanks", "now", "okay", "thank you"]));
    }
    words.join(" ")
}
