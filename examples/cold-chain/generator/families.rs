//! What people say: families of phrasings for one meaning each. The last phrasing of a family is the withheld one.

use super::call::{Call, Kind, MINUTES, Slot, Unit};
use super::dice::Dice;
use super::speech::{self, Words};

pub struct Family {
    /// How often it is said, relative to the others.
    weight: u64,
    pub phrasings: &'static [&'static str],
    /// One meaning and the words for it.
    pub speak: fn(&mut Dice) -> (Call, Words),
}

pub fn draw(dice: &mut Dice) -> &'static Family {
    let mut left = dice.below(FAMILIES.iter().map(|family| family.weight).sum());
    for family in FAMILIES {
        if left < family.weight {
            return family;
        }
        left -= family.weight;
    }
    unreachable!("the weights add up")
}

static FAMILIES: &[Family] = &[
    Family {
        weight: 18,
        phrasings: &[
            "set {unit} to {temp}",
            "turn {unit} to {temp}",
            "make {unit} {temp}",
            "change the target of {unit} to {temp}",
            "put {unit} at {temp}",
            "{unit} should be {temp}",
            "keep {unit} steady around {temp}",
        ],
        speak: set_target,
    },
    Family {
        weight: 10,
        phrasings: &[
            "alert me if {unit} goes {beyond} {temp}",
            "set an alarm on {unit} {beyond} {temp}",
            "warn me when {unit} is {beyond} {temp}",
            "alarm for {unit} if it gets {beyond} {temp}",
            "notify us once {unit} is {beyond} {temp}",
            "ring the bell should {unit} ever be {beyond} {temp}",
        ],
        speak: set_alarm,
    },
    Family {
        weight: 6,
        phrasings: &[
            "alert me if {unit} gets too {warm}",
            "set an alarm for {unit} too {warm}",
            "warn me when {unit} is too {warm}",
            "tell me if {unit} becomes too {warm}",
            "i must know as soon as {unit} runs too {warm}",
        ],
        speak: set_default_alarm,
    },
    Family {
        weight: 15,
        phrasings: &[
            "what is the {what} of {unit}",
            "check the {what} of {unit}",
            "tell me the {what} in {unit}",
            "{unit} {what}",
            "give me the {what} reading for {unit}",
            "how is the {what} of {unit}",
            "let me hear where {unit} stands on {what}",
        ],
        speak: query,
    },
    Family {
        weight: 12,
        phrasings: &[
            "snooze {unit} for {time}",
            "silence {unit} for {time}",
            "mute the alarm on {unit} for {time}",
            "pause the alarm of {unit} for {time}",
            "no alarm from {unit} for {time}",
            "leave {unit} in peace {time} long",
        ],
        speak: snooze,
    },
    Family {
        weight: 12,
        phrasings: &[
            "log {event} on {unit}",
            "record {event} for {unit}",
            "note {event} at {unit}",
            "{unit} had {event}",
            "write down {event} on {unit}",
            "put {event} in the book next to {unit}",
        ],
        speak: log_event,
    },
    Family {
        weight: 4,
        phrasings: &["lock {unit}", "lock up {unit}", "lock the door of {unit}", "secure {unit}", "nobody may open {unit}"],
        speak: |dice| lock(true, dice),
    },
    Family {
        weight: 4,
        phrasings: &["unlock {unit}", "open the lock of {unit}", "unlock the door of {unit}", "release {unit}", "take the bolt off {unit}"],
        speak: |dice| lock(false, dice),
    },
    Family {
        weight: 8,
        phrasings: &[
            "report on {unit} for {period}",
            "send me a report of {unit} for {period}",
            "summary of {unit} for {period}",
            "how did {unit} do {period}",
            "export {unit} for {period}",
            "print out {period} as {unit} saw it",
        ],
        speak: report,
    },
    Family {
        weight: 7,
        phrasings: &[
            "{unit} reads {n} too {high}",
            "calibrate {unit} it shows {n} too {high}",
            "the sensor of {unit} is {n} too {high}",
            "correct {unit} it is {n} too {high}",
            "{unit} claims {n} {more} than my thermometer",
        ],
        speak: calibrate,
    },
    Family {
        weight: 4,
        phrasings: &[
            "call {person} about the {item}",
            "what is the weather in {place}",
            "how far is {place}",
            "order {n} boxes of {item}",
            "tell {person} i am late for {place}",
            "where did {person} leave the {item}",
        ],
        speak: out_of_scope,
    },
    Family {
        weight: 3,
        phrasings: &[
            "who cleaned {unit}",
            "paint {unit} {colour}",
            "how old is {unit}",
            "move {unit} to {place}",
            "which company built {unit}",
        ],
        speak: out_of_scope,
    },
];

fn set_target(dice: &mut Dice) -> (Call, Words) {
    let unit = Unit::any(dice);
    let (low, high) = safe_range(unit.kind);
    let celsius = dice.between(low, high);
    let words = unit_words(unit, dice).with("temp", speech::temperature(celsius, dice));
    (Call::new("set_target", vec![("unit", Slot::Unit(unit)), ("celsius", Slot::Celsius(celsius))]), words)
}

/// What a unit of this kind may be set to, in Celsius; also its alarms' defaults.
fn safe_range(kind: Kind) -> (i64, i64) {
    match kind {
        Kind::Fridge => (2, 8),
        Kind::Freezer => (-25, -15),
        Kind::Box => (0, 10),
        Kind::Room => (3, 15),
    }
}

const WHEN: &[&str] = &["above", "below"];

fn set_alarm(dice: &mut Dice) -> (Call, Words) {
    let unit = Unit::any(dice);
    let (low, high) = safe_range(unit.kind);
    let when = dice.pick(WHEN);
    let (celsius, beyond) = match when {
        "above" => (high + dice.between(-2, 4), dice.pick(&["above", "over", "warmer than", "higher than"])),
        _ => (low + dice.between(-4, 2), dice.pick(&["below", "under", "colder than", "lower than"])),
    };
    let words = unit_words(unit, dice).with("beyond", beyond).with("temp", speech::temperature(celsius, dice));
    (alarm(unit, when, celsius), words)
}

fn set_default_alarm(dice: &mut Dice) -> (Call, Words) {
    let unit = Unit::any(dice);
    let (low, high) = safe_range(unit.kind);
    let when = dice.pick(WHEN);
    let (celsius, warm) = match when {
        "above" => (high, dice.pick(&["warm", "hot"])),
        _ => (low, dice.pick(&["cold", "chilly"])),
    };
    (alarm(unit, when, celsius), unit_words(unit, dice).with("warm", warm))
}

fn alarm(unit: Unit, when: &'static str, celsius: i64) -> Call {
    let slots = vec![("unit", Slot::Unit(unit)), ("when", Slot::Word(when, WHEN)), ("celsius", Slot::Celsius(celsius))];
    Call::new("set_alarm", slots)
}

fn query(dice: &mut Dice) -> (Call, Words) {
    const WHAT: &[&str] = &["temperature", "humidity", "battery", "door"];
    let unit = Unit::any(dice);
    let what = dice.pick(WHAT);
    let spoken = match what {
        "temperature" => dice.pick(&["temperature", "temperature", "temp"]),
        "humidity" => dice.pick(&["humidity", "moisture", "humidity"]),
        "battery" => dice.pick(&["battery", "charge", "battery level"]),
        _ => dice.pick(&["door", "door state", "lid"]),
    };
    let slots = vec![("unit", Slot::Unit(unit)), ("what", Slot::Word(what, WHAT))];
    (Call::new("query", slots), unit_words(unit, dice).with("what", spoken))
}

fn snooze(dice: &mut Dice) -> (Call, Words) {
    let unit = Unit::any(dice);
    let minutes = dice.pick(&MINUTES);
    let words = unit_words(unit, dice).with("time", speech::duration(minutes, dice));
    (Call::new("snooze", vec![("unit", Slot::Unit(unit)), ("minutes", Slot::Minutes(minutes))]), words)
}

fn log_event(dice: &mut Dice) -> (Call, Words) {
    const EVENTS: &[&str] = &["power_cut", "door_open", "defrost", "delivery", "spill", "breakdown"];
    let unit = Unit::any(dice);
    let event = dice.pick(EVENTS);
    let spoken = match event {
        "power_cut" => dice.pick(&["a power cut", "an outage"]),
        "door_open" => dice.pick(&["an open door", "the door left open"]),
        "defrost" => dice.pick(&["a defrost", "a thaw"]),
        "delivery" => dice.pick(&["a delivery", "new stock"]),
        "spill" => dice.pick(&["a spill", "a leak"]),
        _ => dice.pick(&["a breakdown", "a dead compressor"]),
    };
    let slots = vec![("unit", Slot::Unit(unit)), ("event", Slot::Word(event, EVENTS))];
    (Call::new("log_event", slots), unit_words(unit, dice).with("event", spoken))
}

fn lock(locked: bool, dice: &mut Dice) -> (Call, Words) {
    let unit = Unit::any(dice);
    (Call::new("lock", vec![("unit", Slot::Unit(unit)), ("locked", Slot::Locked(locked))]), unit_words(unit, dice))
}

fn report(dice: &mut Dice) -> (Call, Words) {
    const PERIODS: &[&str] = &["today", "yesterday", "week", "month"];
    let period = dice.pick(PERIODS);
    let spoken = match period {
        "week" => dice.pick(&["this week", "the week", "the last seven days"]),
        "month" => dice.pick(&["this month", "the month", "the last thirty days"]),
        day => day,
    };
    let (slot, words) = if dice.chance(20) {
        (Slot::AllUnits, Words::default().with("unit", dice.pick(&["all units", "everything", "the whole store", "all of them"])))
    } else {
        let unit = Unit::any(dice);
        (Slot::Unit(unit), unit_words(unit, dice))
    };
    (Call::new("report", vec![("unit", slot), ("period", Slot::Word(period, PERIODS))]), words.with("period", spoken))
}

/// What reads too high is corrected downwards.
fn calibrate(dice: &mut Dice) -> (Call, Words) {
    let unit = Unit::any(dice);
    let degrees = dice.between(1, 5);
    let (offset, high, more) = if dice.chance(50) { (-degrees, "high", "more") } else { (degrees, "low", "less") };
    let ending = if degrees == 1 { "degree" } else { "degrees" };
    let n = format!("{}{}", speech::number(degrees, dice), if dice.chance(60) { format!(" {ending}") } else { String::new() });
    let words = unit_words(unit, dice).with("n", n).with("high", high).with("more", more);
    (Call::new("calibrate", vec![("unit", Slot::Unit(unit)), ("offset", Slot::Offset(offset))]), words)
}

/// Nothing that the device can do. Some of it speaks of units all the same.
fn out_of_scope(dice: &mut Dice) -> (Call, Words) {
    let words = unit_words(Unit::any(dice), dice)
        .with("person", dice.pick(&["amina", "doctor okoro", "the driver", "the nurse", "joseph", "my sister", "the ministry", "fatou"]))
        .with("place", dice.pick(&["kisumu", "the market", "the clinic", "mombasa", "the airport", "the village", "town", "the school"]))
        .with("item", dice.pick(&["syringes", "gloves", "vaccines", "keys", "forms", "bandages", "lunch", "masks"]))
        .with("colour", dice.pick(&["blue", "white", "green", "yellow", "red", "grey"]));
    let n = dice.between(2, 60);
    (Call::new("none", Vec::new()), words.with("n", speech::number(n, dice)))
}

fn unit_words(unit: Unit, dice: &mut Dice) -> Words {
    Words::default().with("unit", speech::unit(unit, dice))
}
