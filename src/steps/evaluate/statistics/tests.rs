//! Figures and differences as reports and gates have them.

use proptest::prelude::*;

use super::*;
use crate::kernels::math::{exp64, ln64};
use crate::kernels::rng;

const BY: Resampling = Resampling { resamples: 2000, seed: 7 };

fn answered(right: impl IntoIterator<Item = bool>) -> Vec<Item> {
    right.into_iter().map(|right| Item { exact_match: Some(right), ..Item::default() }).collect()
}

fn first_right(right: usize, all: usize) -> Vec<Item> {
    answered((0..all).map(|i| i < right))
}

fn scored(parts: &[(f64, u64)]) -> Vec<Item> {
    let item = |(sum, tokens): &(f64, u64)| Item {
        nll: Some(*sum),
        kl_divergence: Some(*sum),
        top1_agree: Some(*sum as u64),
        tokens: Some(*tokens),
        ..Item::default()
    };
    parts.iter().map(item).collect()
}

fn figure(kind: MetricKind, items: &[Item]) -> Metric {
    metric(&Terms::of(kind, items).unwrap(), BY).unwrap()
}

fn change(kind: MetricKind, of: &[Item], from: &[Item]) -> Metric {
    difference(&Terms::of(kind, of).unwrap(), &Terms::of(kind, from).unwrap(), BY).unwrap()
}

fn width(metric: Metric) -> f64 {
    metric.high.unwrap() - metric.low.unwrap()
}

#[test]
fn a_share_at_the_border_is_not_certain() {
    let one = figure(MetricKind::ExactMatch, &first_right(1, 1));
    assert_eq!((one.value, one.high), (1.0, Some(1.0)));
    assert!((one.low.unwrap() - 0.206_549_314_377_237).abs() < 1e-12);
    let all = figure(MetricKind::ExactMatch, &first_right(80, 80));
    assert!((all.low.unwrap() - 0.954_181_870_464_473).abs() < 1e-12);
    let none = figure(MetricKind::ExactMatch, &first_right(0, 80));
    assert!((none.high.unwrap() - 0.045_818_129_535_527).abs() < 1e-12 && none.low == Some(0.0));
    let middle = figure(MetricKind::ExactMatch, &first_right(700, 1000));
    let normal = 1.96 * (0.7f64 * 0.3 / 1000.0).sqrt();
    assert!((width(middle) - 2.0 * normal).abs() < 1e-3, "{middle:?}");
    // The seed draws items for means only.
    let other = metric(&Terms::of(MetricKind::ExactMatch, &first_right(700, 1000)).unwrap(), Resampling { seed: 8, ..BY });
    assert_eq!(other, Some(middle));
}

#[test]
fn every_share_of_items_is_treated_alike() {
    let item = Item {
        exact_match: Some(true),
        reference_exact_match: Some(false),
        json_valid: Some(true),
        regex_match: Some(true),
        json_schema_valid: Some(true),
        json_exact_match: Some(true),
        acc: Some(true),
        acc_norm: Some(true),
        acc_bytes: Some(true),
        acc_mutual_info: Some(true),
        ..Item::default()
    };
    let shares = super::super::metric::NAMES.iter().filter_map(|name| MetricKind::from_name(name));
    for kind in shares.filter(|kind| kind.shape() == Shape::ShareOfItems) {
        let found = figure(kind, &vec![item.clone(); 5]);
        assert_eq!((found.value, found.high), (1.0, Some(1.0)), "{kind:?}");
        assert!((found.low.unwrap() - 5.0 / (5.0 + 1.959_963_984_540_054f64.powi(2))).abs() < 1e-12, "{kind:?}");
        assert!(Terms::of(kind, &[Item::default()]).is_none() && Terms::of(kind, &[]).is_none(), "{kind:?}");
        let same = change(kind, &vec![item.clone(); 5], &vec![item.clone(); 5]);
        assert!(same.value == 0.0 && width(same) > 0.8, "{kind:?} {same:?}");
    }
}

#[test]
fn a_paired_difference_looks_at_the_items_that_differ() {
    let (more, less) = (first_right(700, 1000), first_right(690, 1000));
    let drop = change(MetricKind::ExactMatch, &more, &less);
    assert!((drop.value - 0.01).abs() < 1e-12);
    assert!(drop.low.unwrap() > 0.0 && width(drop) < 0.02, "{drop:?}");
    // As many right ones, of other items.
    let others = answered((0..1000).map(|i| i >= 300));
    let torn = change(MetricKind::ExactMatch, &more, &others);
    assert!(torn.value == 0.0 && width(torn) > 0.04, "{torn:?}");
    let of_more = Terms::of(MetricKind::ExactMatch, &more).unwrap();
    let of_fewer = Terms::of(MetricKind::ExactMatch, &more[..9]).unwrap();
    assert!(difference(&of_more, &of_fewer, BY).is_none());
}

#[test]
fn a_mean_of_one_item_or_of_equal_ones_has_no_known_interval() {
    for kind in [MetricKind::Perplexity, MetricKind::KlDivergence] {
        let unknown = |parts: &[(f64, u64)]| {
            let found = figure(kind, &scored(parts));
            assert_eq!((found.low, found.high), (None, None), "{kind:?} {parts:?}");
        };
        unknown(&[(1.5, 10)]);
        unknown(&[(1.5, 10), (0.0, 0), (0.0, 0)]);
        unknown(&[(0.5, 10), (0.5, 10), (0.5, 10)]);
        unknown(&[(0.1, 1), (0.3, 3), (0.7, 7)]);
        unknown(&[(0.0, 10), (0.0, 20)]);
        let ours = scored(&[(0.0, 10), (0.0, 20)]);
        let same = change(kind, &ours, &ours);
        assert_eq!((same.value, same.low, same.high), (0.0, None, None));
        let one = change(kind, &scored(&[(1.0, 2)]), &scored(&[(2.0, 2)]));
        assert_eq!((one.low, one.high), (None, None));
    }
    // So sure a model that doubles cannot tell its perplexity from 1.
    let sure = figure(MetricKind::Perplexity, &scored(&[(1e-20, 10), (3e-20, 10)]));
    assert_eq!((sure.value, sure.low, sure.high), (1.0, None, None));
}

#[test]
fn a_mean_of_few_items_is_as_wide_as_students() {
    let two = figure(MetricKind::KlDivergence, &scored(&[(10.0, 10), (30.0, 10)]));
    // 2 ± 12.7, and no divergence is below zero; the bootstrap alone says 1 to 3.
    assert!(two.value == 2.0 && two.low == Some(0.0) && (two.high.unwrap() - 14.706_204_736).abs() < 1e-6, "{two:?}");
    let perplexity = figure(MetricKind::Perplexity, &scored(&[(10.0, 10), (30.0, 10)]));
    assert!((perplexity.value - exp64(2.0)).abs() < 1e-12);
    assert!(perplexity.low == Some(1.0) && (perplexity.high.unwrap() / exp64(14.706_204_736) - 1.0).abs() < 1e-6, "{perplexity:?}");
    // Beyond what a double holds.
    let wide = figure(MetricKind::Perplexity, &scored(&[(10.0, 10), (3000.0, 10)]));
    assert!(wide.value.is_finite() && wide.low == Some(1.0) && wide.high.is_none(), "{wide:?}");
    assert!(metric(&Terms::of(MetricKind::Perplexity, &scored(&[(8000.0, 10)])).unwrap(), BY).is_none());
}

#[test]
fn perplexity_is_of_tokens_not_of_items() {
    let found = figure(MetricKind::Perplexity, &scored(&[(1.0, 1), (3.0, 3)]));
    assert!((found.value - std::f64::consts::E).abs() < 1e-12);
    assert!(Terms::of(MetricKind::Perplexity, &scored(&[(0.0, 0)])).is_none());
    assert!(Terms::of(MetricKind::Perplexity, &[Item::default()]).is_none());
}

#[test]
fn agreement_on_all_tokens_is_not_certain() {
    let all = figure(MetricKind::Top1Agreement, &scored(&[(50.0, 50); 8]));
    assert!(all.value == 1.0 && (all.low.unwrap() - 8.0 / (8.0 + 1.959_963_984_540_054f64.powi(2))).abs() < 1e-12, "{all:?}");
    let one = figure(MetricKind::Top1Agreement, &scored(&[(45.0, 50)]));
    assert_eq!((one.low, one.high), (None, None));
    let some = figure(MetricKind::Top1Agreement, &scored(&[(50.0, 50), (45.0, 50), (48.0, 50), (50.0, 50), (41.0, 50)]));
    assert!(some.low.unwrap() < 0.88 && some.high.unwrap() < 1.0, "{some:?}");
    let same = change(MetricKind::Top1Agreement, &scored(&[(50.0, 50); 8]), &scored(&[(50.0, 50); 8]));
    assert!(same.value == 0.0 && width(same) > 0.5, "{same:?}");
}

#[test]
fn threads_do_not_change_an_interval() {
    let items = scored(&(0..456).map(|i| (f64::from(i % 7) * 1.3, u64::from(i as u32 % 5 + 1))).collect::<Vec<_>>());
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| (figure(MetricKind::Perplexity, &items), change(MetricKind::Perplexity, &items, &scored(&[(1.0, 2); 456]))))
    };
    assert_eq!(on(1), on(3));
    let other = metric(&Terms::of(MetricKind::Perplexity, &items).unwrap(), Resampling { seed: 8, ..BY }).unwrap();
    assert!((other.high.unwrap() / on(1).0.high.unwrap() - 1.0).abs() < 0.02);
}

/// How often the interval of a mean holds the true one, with few items and a skewed distribution.
#[test]
fn means_cover_what_they_promise() {
    let mut place = 0;
    let mut uniform = || {
        place += 1;
        (rng::below(11, 5, place, 1 << 40) as f64 + 0.5) / (1u64 << 40) as f64
    };
    let by = Resampling { resamples: 200, seed: 1 };
    for (items, least) in [(2usize, 0.93), (3, 0.92), (5, 0.92), (10, 0.92), (40, 0.93)] {
        let trials = 500;
        for is_skewed in [false, true] {
            let mut draw = || if is_skewed { -ln64(uniform()) } else { (0..4).map(|_| uniform()).sum::<f64>() / 2.0 };
            let held = (0..trials).filter(|_| {
                let parts: Vec<(f64, u64)> = (0..items).map(|_| (draw(), 1)).collect();
                let found = metric(&Terms::of(MetricKind::KlDivergence, &scored(&parts)).unwrap(), by).unwrap();
                found.low.unwrap() <= 1.0 && 1.0 <= found.high.unwrap()
            });
            let coverage = held.count() as f64 / f64::from(trials);
            let least = if is_skewed { least - 0.05 } else { least };
            assert!(coverage >= least, "{items} items, skewed {is_skewed}: {coverage}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_interval_holds_its_figure_and_never_closes(parts in prop::collection::vec((0.0f64..50.0, 0u64..60), 1..20), ours: Vec<bool>, theirs: Vec<bool>) {
        let by = Resampling { resamples: 100, seed: 3 };
        let parts: Vec<(f64, u64)> = parts.iter().map(|(sum, tokens)| (sum.min(*tokens as f64), *tokens)).collect();
        let other: Vec<(f64, u64)> = parts.iter().rev().zip(&parts).map(|((sum, _), (_, tokens))| (sum.min(*tokens as f64), *tokens)).collect();
        let check = |found: Metric| {
            prop_assert!(found.low.is_none_or(|low| low <= found.value) && found.high.is_none_or(|high| found.value <= high), "{found:?}");
            prop_assert!(found.low.is_none() || found.low != found.high, "{found:?}");
            Ok(())
        };
        for kind in [MetricKind::Perplexity, MetricKind::KlDivergence, MetricKind::Top1Agreement] {
            let (Some(of), Some(from)) = (Terms::of(kind, &scored(&parts)), Terms::of(kind, &scored(&other))) else { continue };
            check(metric(&of, by).unwrap())?;
            check(difference(&of, &from, by).unwrap())?;
            if kind == MetricKind::Top1Agreement {
                let found = metric(&of, by).unwrap();
                prop_assert!(found.low.is_none_or(|low| low >= 0.0) && found.high.is_none_or(|high| high <= 1.0));
            }
        }
        let tokens = |parts: &[(f64, u64)]| -> Vec<Item> {
            parts.iter().map(|(sum, tokens)| Item { token_kl_divergences: Some((0..*tokens).map(|i| sum * i as f64).collect()), ..Item::default() }).collect()
        };
        if let (Some(of), Some(from)) = (Terms::of(MetricKind::KlDivergenceP99, &tokens(&parts)), Terms::of(MetricKind::KlDivergenceP99, &tokens(&other))) {
            check(metric(&of, by).unwrap())?;
            check(difference(&of, &from, by).unwrap())?;
        }
        let n = ours.len().min(theirs.len());
        if n > 0 {
            check(figure(MetricKind::ExactMatch, &answered(ours[..n].iter().copied())))?;
            check(change(MetricKind::ExactMatch, &answered(ours[..n].iter().copied()), &answered(theirs[..n].iter().copied())))?;
        }
    }
}
