//! Which record goes to which split: decided by hashes of content, so that neither order nor neighbours matter.

use std::collections::BTreeMap;

use serde_json::Value;

use super::clean::{Kept, Leaks};
use super::normal::{as_shown, lot};
use super::{Counts, OnLeak, Settings};
use crate::base::Digest;
use crate::steps::Failure;

#[derive(Debug)]
pub struct Split {
    pub name: String,
    pub share: f64,
}

/// Sets every record's split; drops, or fails for, what would leak from one into another.
pub fn assign(settings: &Settings, lines: &mut Vec<Kept>, counts: &mut Counts) -> Result<Vec<Split>, Failure> {
    let splits: Vec<Split> = settings.split.iter().map(|(name, share)| Split { name: name.clone(), share: *share }).collect();
    let groups = values(settings.group_by.as_deref(), lines)?;
    let strata = values(settings.stratify_by.as_deref(), lines)?;
    let group_of =
        |kept: &Kept, i: usize| groups.as_ref().map_or_else(|| kept.prompt.as_bytes().to_vec(), |values| values[i].as_bytes().to_vec());
    let groups: Vec<Vec<u8>> = lines.iter().enumerate().map(|(i, kept)| group_of(kept, i)).collect();
    let homes = match strata {
        None => by_lot(settings.seed, &groups, &splits),
        Some(strata) => by_rank(settings.seed, &groups, &strata, &splits),
    };
    for (kept, home) in lines.iter_mut().zip(homes) {
        kept.split = home;
    }
    drop_torn_prompts(settings.on_leak, &splits, lines, counts)?;
    match splits.iter().enumerate().find(|(number, _)| lines.iter().all(|kept| kept.split != *number)) {
        Some((_, split)) if !lines.is_empty() => {
            Err(Failure::new(format!("the split `{}` came out empty: {} records are too few for its share", split.name, lines.len()))
                .help("give it a larger share, another seed, or more data"))
        }
        _ => Ok(splits),
    }
}

/// The value of a key for every record, as JSON text as it is seen: what looks the same is the same value.
fn values(key: Option<&str>, lines: &[Kept]) -> Result<Option<Vec<String>>, Failure> {
    let Some(key) = key else { return Ok(None) };
    let value = |kept: &Kept| {
        let missing = || Failure::new(format!("record {} (counted from 1 as read) has no key `{key}`", kept.number));
        kept.line.extra.get(key).map(shown).ok_or_else(missing)
    };
    lines.iter().map(value).collect::<Result<_, _>>().map(Some)
}

/// `7` and `7.0` are one number, and `é` is one letter however it is composed.
fn shown(value: &Value) -> String {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value.as_f64().filter(|number| value.is_f64() && number.fract() == 0.0 && number.abs() < EXACT) {
        Some(whole) => format!("{}", whole as i64),
        None => as_shown(&value.to_string()),
    }
}

const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

/// A group's lot alone decides: whatever is added later, it stays where it is.
fn by_lot(seed: u64, groups: &[Vec<u8>], splits: &[Split]) -> Vec<usize> {
    groups.iter().map(|group| place(lot(seed, "split", group) as f64 / TWO_TO_64, splits)).collect()
}

/// A group among those of its stratum, ordered by its lot.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ranked<'a> {
    lot: u64,
    group: &'a [u8],
    size: u64,
}

/// Within each stratum the groups stand in the order of their lots and are cut where the shares end. A group belongs to the stratum of its first record.
fn by_rank(seed: u64, groups: &[Vec<u8>], strata: &[String], splits: &[Split]) -> Vec<usize> {
    let mut sizes: BTreeMap<&[u8], (&str, u64)> = BTreeMap::new();
    for (group, stratum) in groups.iter().zip(strata) {
        sizes.entry(group).or_insert((stratum, 0)).1 += 1;
    }
    let mut ranked: BTreeMap<&str, Vec<Ranked>> = BTreeMap::new();
    for (group, (stratum, size)) in sizes {
        ranked.entry(stratum).or_default().push(Ranked { lot: lot(seed, "split", group), group, size });
    }
    let mut homes: BTreeMap<&[u8], usize> = BTreeMap::new();
    for of_stratum in ranked.values_mut() {
        of_stratum.sort_unstable();
        let total: u64 = of_stratum.iter().map(|ranked| ranked.size).sum();
        let mut before = 0;
        for Ranked { group, size, .. } in of_stratum {
            // A group's middle, so that n single records are cut at the rounded multiples of n.
            homes.insert(group, place((before as f64 + *size as f64 / 2.0) / total as f64, splits));
            before += *size;
        }
    }
    groups.iter().map(|group| homes[group.as_slice()]).collect()
}

/// The split in whose share a number of [0, 1) falls.
fn place(at: f64, splits: &[Split]) -> usize {
    let mut end = 0.0;
    let inside = splits.iter().position(|split| {
        end += split.share;
        at < end
    });
    inside.unwrap_or(splits.len() - 1)
}

/// Groups may share a prompt; then it stays in the smallest of its splits, since tests are smaller than training data.
fn drop_torn_prompts(on_leak: OnLeak, splits: &[Split], lines: &mut Vec<Kept>, counts: &mut Counts) -> Result<(), Failure> {
    let mut homes: BTreeMap<Digest, usize> = BTreeMap::new();
    for kept in lines.iter() {
        let home = homes.entry(kept.prompt).or_insert(kept.split);
        if splits[kept.split].share < splits[*home].share {
            *home = kept.split;
        }
    }
    let mut leaks = Leaks::default();
    lines.retain(|kept| {
        let stays = homes[&kept.prompt] == kept.split;
        if !stays {
            leaks.add(kept.number);
        }
        stays
    });
    leaks.settle(on_leak, "is in a smaller split too", counts)
}
