//! Which type each matrix gets, so that what it costs in all is least within a size: a knapsack with one thing from each of many heaps. It is solved exactly for sizes rounded up to
//! some ten thousandths of the whole; what the rounding leaves is filled with changes and exchanges that still fit.

use serde::{Deserialize, Serialize};

use crate::model::quant::BlockType;

/// What a size is divided into.
const UNITS: u64 = 1 << 16;

/// One type for one matrix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    #[serde(rename = "type", with = "by_name")]
    pub ty: BlockType,
    pub size_bytes: u64,
    /// What it adds to the divergence.
    pub cost: f64,
}

/// A block type as its name.
mod by_name {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::model::quant::BlockType;

    pub fn serialize<S: Serializer>(ty: &BlockType, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(ty.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BlockType, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// For each matrix the number of the offer that is taken. `Err` holds the least size that there is.
pub fn choose(matrices: &[Vec<Offer>], budget_bytes: u64) -> Result<Vec<usize>, u64> {
    let cheapest = |offers: &Vec<Offer>| (0..offers.len()).min_by(|a, b| by_size(&offers[*a], &offers[*b])).unwrap_or(0);
    let smallest: Vec<usize> = matrices.iter().map(cheapest).collect();
    let least = size(matrices, &smallest);
    if least > budget_bytes {
        return Err(least);
    }
    let largest: u64 = matrices.iter().filter_map(|offers| offers.iter().map(|offer| offer.size_bytes).max()).sum();
    let budget = budget_bytes.min(largest);
    // Sizes rounded up to units may not fit where the bytes do.
    let mut taken = in_units(matrices, budget).unwrap_or(smallest);
    let mut left = budget - size(matrices, &taken);
    fill(matrices, &mut taken, &mut left);
    Ok(taken)
}

fn size(matrices: &[Vec<Offer>], taken: &[usize]) -> u64 {
    matrices.iter().zip(taken).filter_map(|(offers, i)| offers.get(*i)).map(|offer| offer.size_bytes).sum()
}

/// The best of all choices, sizes rounded up to whole units: the least cost of the matrices so far within each number of units, one matrix after the other.
fn in_units(matrices: &[Vec<Offer>], budget_bytes: u64) -> Option<Vec<usize>> {
    let unit = budget_bytes.div_ceil(UNITS).max(1);
    let budget = usize::try_from(budget_bytes / unit).ok()?;
    let mut least = vec![0.0f64; budget + 1];
    let mut taken = Vec::with_capacity(matrices.len());
    for offers in matrices {
        let mut next = vec![f64::INFINITY; budget + 1];
        let mut choice = vec![u8::MAX; budget + 1];
        for (number, offer) in offers.iter().enumerate() {
            let Ok(units) = usize::try_from(offer.size_bytes.div_ceil(unit)) else { continue };
            let places = next.iter_mut().zip(&mut choice).skip(units);
            for ((next, choice), before) in places.zip(&least) {
                if before + offer.cost < *next {
                    (*next, *choice) = (before + offer.cost, number as u8);
                }
            }
        }
        least = next;
        taken.push(choice);
    }
    let mut at = budget;
    let mut chosen = vec![0; matrices.len()];
    for ((chosen, offers), choice) in chosen.iter_mut().zip(matrices).zip(&taken).rev() {
        let offer = offers.get(usize::from(*choice.get(at)?))?;
        *chosen = usize::from(choice[at]);
        at -= usize::try_from(offer.size_bytes.div_ceil(unit)).ok()?;
    }
    Some(chosen)
}

/// Takes the single change, or else the exchange between two matrices, that saves most and fits, until none saves anything.
fn fill(matrices: &[Vec<Offer>], taken: &mut [usize], left: &mut u64) {
    // Each exchange lowers the cost, so this ends by itself; the cap only bounds the time.
    for _ in 0..10 * matrices.len() {
        let changes = changes(matrices, taken);
        let room = i128::from(*left);
        let single = changes.iter().filter(|change| change.bytes <= room && change.saved > 0.0);
        let most = |a: &&Change, b: &&Change| a.saved.total_cmp(&b.saved).then((b.matrix, b.offer).cmp(&(a.matrix, a.offer)));
        let found: Vec<Change> = match single.max_by(most) {
            Some(change) => vec![*change],
            None => exchange(&changes, room),
        };
        if found.is_empty() {
            return;
        }
        for change in found {
            taken[change.matrix] = change.offer;
            *left = u64::try_from(i128::from(*left) - change.bytes).unwrap_or(0);
        }
    }
}

/// Another offer for a matrix: how many bytes more it takes, and what it saves.
#[derive(Clone, Copy)]
struct Change {
    matrix: usize,
    offer: usize,
    bytes: i128,
    saved: f64,
}

fn changes(matrices: &[Vec<Offer>], taken: &[usize]) -> Vec<Change> {
    let of = |(matrix, (offers, taken)): (usize, (&'_ Vec<Offer>, &usize))| -> Vec<Change> {
        let Some(now) = offers.get(*taken) else { return Vec::new() };
        let change = |(offer, other): (usize, &Offer)| Change {
            matrix,
            offer,
            bytes: i128::from(other.size_bytes) - i128::from(now.size_bytes),
            saved: now.cost - other.cost,
        };
        offers.iter().enumerate().filter(|(offer, _)| offer != taken).map(change).collect()
    };
    matrices.iter().zip(taken).enumerate().flat_map(of).collect()
}

/// The best upgrade of one matrix that is paid for by making another smaller.
fn exchange(changes: &[Change], room: i128) -> Vec<Change> {
    let mut best: Option<(Change, Change)> = None;
    let mut most = 0.0;
    for up in changes.iter().filter(|change| change.saved > 0.0) {
        for down in changes.iter().filter(|change| change.bytes < 0 && change.matrix != up.matrix) {
            let saved = up.saved + down.saved;
            if up.bytes + down.bytes <= room && saved > most {
                (most, best) = (saved, Some((*down, *up)));
            }
        }
    }
    // The smaller one first: in between, nothing may be over the size.
    best.map_or(Vec::new(), |(down, up)| vec![down, up])
}

fn by_size(a: &Offer, b: &Offer) -> std::cmp::Ordering {
    a.size_bytes.cmp(&b.size_bytes).then(a.cost.total_cmp(&b.cost))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(scale: f64, blocks: u64) -> Vec<Offer> {
        [(BlockType::Q4_0, 18, 1.0), (BlockType::Q5_0, 22, 0.25), (BlockType::Q8_0, 34, 0.01), (BlockType::F16, 64, 1e-6)]
            .map(|(ty, bytes, cost)| Offer { ty, size_bytes: bytes * blocks, cost: cost * scale })
            .to_vec()
    }

    fn total(matrices: &[Vec<Offer>], taken: &[usize]) -> (u64, f64) {
        let of = |(offers, i): (&Vec<Offer>, &usize)| (offers[*i].size_bytes, offers[*i].cost);
        matrices.iter().zip(taken).map(of).fold((0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    #[test]
    fn it_is_nearly_the_best_of_all_choices() {
        let matrices: Vec<_> = [(1.0, 3), (0.1, 1), (5.0, 7), (0.02, 9), (0.7, 2)].map(|(scale, blocks)| offers(scale, blocks)).to_vec();
        for budget in (400..1400).step_by(37) {
            let taken = choose(&matrices, budget).unwrap();
            let (size, cost) = total(&matrices, &taken);
            let all = (0..4usize.pow(5)).map(|n| (0..5).map(|m| n / 4usize.pow(m) % 4).collect::<Vec<_>>());
            let best = all
                .map(|taken| total(&matrices, &taken))
                .filter(|(size, _)| *size <= budget)
                .map(|(_, cost)| cost)
                .fold(f64::MAX, f64::min);
            assert!(size <= budget && cost <= best * 1.1, "{budget}: {cost} for {size}, best {best}");
        }
    }

    #[test]
    fn what_cannot_fit_is_told_and_what_all_fits_is_the_best() {
        let matrices = vec![offers(1.0, 10), offers(2.0, 20)];
        assert_eq!(choose(&matrices, 539), Err(540));
        assert_eq!(choose(&matrices, 540), Ok(vec![0, 0]));
        assert_eq!(choose(&matrices, u64::MAX), Ok(vec![3, 3]));
        assert_eq!(choose(&[], 0), Ok(vec![]));
    }
}
