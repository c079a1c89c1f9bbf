//! Makes the cold-chain data: spoken commands to vaccine fridges and the calls that they mean. Which set holds what is decided here; how
//! people speak is in `speech`, what they say in `families`.

mod call;
mod dice;
mod families;
mod speech;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::Path;

use slmops::steps::dataset::record::{self, Line, Record};

use call::Call;
use dice::Dice;

const SEED: u64 = 20_240_229;

/// One data file.
struct Set {
    name: &'static str,
    size: usize,
    phrasings: Phrasings,
    labels: Labels,
}

/// Which of a family's phrasings may be said. The last one of every family is withheld from everybody who labels.
#[derive(Clone, Copy)]
enum Phrasings {
    All,
    Seen,
    Withheld,
}

#[derive(Clone, Copy)]
enum Labels {
    /// This many of 100 have one wrong slot, as a tired annotator leaves them.
    Noisy(u64),
    Clean,
    Missing,
}

/// The tests come first: a prompt that stands in one of them, or in the validation set, is never drawn again.
const SETS: [Set; 6] = [
    Set { name: "test_seen", size: 1_000, phrasings: Phrasings::Seen, labels: Labels::Clean },
    Set { name: "test_unseen", size: 1_000, phrasings: Phrasings::Withheld, labels: Labels::Clean },
    Set { name: "validation", size: 500, phrasings: Phrasings::Seen, labels: Labels::Clean },
    Set { name: "vendor", size: 12_000, phrasings: Phrasings::All, labels: Labels::Noisy(8) },
    Set { name: "site_labels", size: 2_000, phrasings: Phrasings::Seen, labels: Labels::Noisy(25) },
    Set { name: "field_prompts", size: 5_000, phrasings: Phrasings::All, labels: Labels::Missing },
];

/// Writes all sets as `NAME.jsonl` into a folder.
pub fn write_all(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut reserved = BTreeSet::new();
    for (number, set) in SETS.iter().enumerate() {
        let mut out = BufWriter::new(File::create(folder.join(format!("{}.jsonl", set.name)))?);
        let mut said = reserved.clone();
        for line in lines(set, number as u64, &mut said) {
            record::write(&mut out, &line)?;
        }
        io::Write::flush(&mut out)?;
        if matches!(set.labels, Labels::Clean) {
            reserved = said;
        }
    }
    Ok(())
}

/// Writes the right answers to all that the site and the field say as `gold.jsonl`: what nobody there has, to see how much is lost for want of it.
pub fn write_gold(folder: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(folder.join("gold.jsonl"))?);
    let mut reserved = BTreeSet::new();
    for (number, set) in SETS.iter().enumerate() {
        let mut said = reserved.clone();
        let labels = Labels::Clean;
        let gold = lines(&Set { labels, ..*set }, number as u64, &mut said);
        match set.labels {
            Labels::Clean => reserved = said,
            _ if set.name == "vendor" => {}
            _ => gold.iter().try_for_each(|line| record::write(&mut out, line))?,
        }
    }
    io::Write::flush(&mut out)
}

/// Prompts of all phrasings with what they mean, for who wants more of them than the files hold.
#[cfg(test)]
pub fn clean(count: u64) -> Vec<(String, String)> {
    let set = Set { name: "", size: 0, phrasings: Phrasings::All, labels: Labels::Clean };
    let draws = (0..count).map(|index| draw(&set, &mut Dice::new(SEED, SETS.len() as u64, index)));
    draws.filter_map(|(prompt, call)| Some((prompt, call?.to_string()))).collect()
}

/// As many lines as the set wants, none with a prompt that was `said` before.
fn lines(set: &Set, number: u64, said: &mut BTreeSet<String>) -> Vec<Line> {
    let draws = (0..).map(|index| draw(set, &mut Dice::new(SEED, number, index)));
    draws.filter(|(prompt, _)| said.insert(prompt.clone())).take(set.size).map(|(prompt, call)| line(prompt, call)).collect()
}

fn draw(set: &Set, dice: &mut Dice) -> (String, Option<Call>) {
    let family = families::draw(dice);
    let (last, seen) = family.phrasings.split_last().expect("a family has phrasings");
    let phrasing = match set.phrasings {
        Phrasings::All => dice.pick(family.phrasings),
        Phrasings::Seen => dice.pick(seen),
        Phrasings::Withheld => *last,
    };
    let (call, words) = (family.speak)(dice);
    let prompt = speech::with_fillers(&words.fill(phrasing), dice);
    let call = match set.labels {
        Labels::Clean => Some(call),
        Labels::Noisy(percent) if dice.chance(percent) => Some(call.with_a_mistake(dice)),
        Labels::Noisy(_) => Some(call),
        Labels::Missing => None,
    };
    (prompt, call)
}

fn line(prompt: String, call: Option<Call>) -> Line {
    let completion = call.map(|call| call.to_string());
    Line { record: Record::Pair { prompt, completion }, extra: Default::default() }
}
