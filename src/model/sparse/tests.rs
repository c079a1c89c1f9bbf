//! Each pattern holds exactly, and what SparseGPT makes good is felt in the output.

use super::score::norms;
use super::*;
use crate::kernels::rng;
use crate::model::decoder::Gather;
use crate::model::hessian::Hessian;
use crate::model::hessian::tests::inputs;

const ROWS: usize = 24;
const COLUMNS: usize = 96;

fn matrix() -> Vec<f32> {
    (0..ROWS * COLUMNS).map(|i| rng::uniform(9, 4, i as u64) - 0.5).collect()
}

fn gathered() -> Hessian {
    let mut hessian = Hessian::default();
    hessian.add(&inputs(600, COLUMNS, 11), COLUMNS);
    hessian
}

fn zeros(values: &[f32]) -> usize {
    values.iter().filter(|value| **value == 0.0).count()
}

/// Of the matrix's output on the text.
fn error(values: &[f32], hessian: &Hessian) -> f64 {
    let rows = values.chunks_exact(COLUMNS).zip(matrix().chunks_exact(COLUMNS).map(<[f32]>::to_vec).collect::<Vec<_>>());
    rows.map(|(a, b)| hessian.cost(&a.iter().zip(&b).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect::<Vec<_>>())).sum()
}

const PATTERNS: [Pattern; 5] = [
    Pattern::Unstructured { ratio: 0.5, per: Per::Output },
    Pattern::Unstructured { ratio: 0.5, per: Per::Layer },
    Pattern::Unstructured { ratio: 0.37, per: Per::Layer },
    Pattern::Groups { zeros: 2, of: 4 },
    Pattern::Groups { zeros: 4, of: 8 },
];

fn pruned(pattern: Pattern) -> [Vec<f32>; 3] {
    let hessian = gathered();
    let (mut magnitude, mut wanda, mut moved) = (matrix(), matrix(), matrix());
    score::prune(&mut magnitude, COLUMNS, pattern, None);
    score::prune(&mut wanda, COLUMNS, pattern, Some(&norms(&hessian.diagonal())));
    sparsegpt::prune(&mut moved, &hessian.inverse_factor(0.01).unwrap(), pattern, 32);
    [magnitude, wanda, moved]
}

#[test]
fn every_pattern_holds_exactly() {
    for pattern in PATTERNS {
        for (method, values) in pruned(pattern).iter().enumerate() {
            match pattern {
                Pattern::Unstructured { ratio, per: Per::Output } if method < 2 => {
                    values.chunks_exact(COLUMNS).for_each(|row| assert_eq!(zeros(row), share(ratio, COLUMNS), "{pattern:?}"));
                }
                Pattern::Unstructured { ratio, .. } => assert_eq!(zeros(values), share(ratio, ROWS * COLUMNS), "{pattern:?} {method}"),
                Pattern::Groups { zeros: count, of } => {
                    values.chunks_exact(of).for_each(|group| assert_eq!(zeros(group), count, "{pattern:?} {method}"));
                }
            }
        }
        let [magnitude, wanda, _] = pruned(pattern);
        for values in [magnitude, wanda] {
            values.iter().zip(matrix()).for_each(|(a, b)| assert!(*a == 0.0 || *a == b));
        }
    }
}

#[test]
fn what_is_made_good_is_felt_in_the_output() {
    let hessian = gathered();
    for pattern in PATTERNS {
        let [magnitude, wanda, moved] = pruned(pattern).map(|values| error(&values, &hessian));
        assert!(wanda < 0.9 * magnitude, "{pattern:?}: Wanda {wanda}, magnitude {magnitude}");
        assert!(moved < 0.5 * wanda, "{pattern:?}: SparseGPT {moved}, Wanda {wanda}");
    }
}

#[test]
fn threads_change_no_bit() {
    let on = |threads: usize, pattern| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| pruned(pattern));
    PATTERNS.into_iter().for_each(|pattern| assert!(on(1, pattern) == on(3, pattern)));
}

#[test]
fn of_equal_weights_the_first_go() {
    let mut values = vec![1.0; 8];
    score::prune(&mut values, 4, Pattern::Unstructured { ratio: 0.5, per: Per::Layer }, None);
    assert_eq!(values, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    let mut values = vec![1.0; 8];
    score::prune(&mut values, 4, Pattern::Groups { zeros: 2, of: 4 }, None);
    assert_eq!(values, [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn a_mask_covers_the_zeros_of_linear_layers_and_a_ledger_counts_them() {
    let config = crate::model::config::tests::tiny();
    let mut weights = crate::model::Weights::random(&config, 1).unwrap();
    let name = "model.layers.1.mlp.down_proj.weight";
    let columns = weights.shape(name).unwrap()[1];
    score::prune(weights.get_mut(name).unwrap(), columns, Pattern::Groups { zeros: 4, of: 8 }, None);
    weights.get_mut("model.embed_tokens.weight").unwrap()[3] = 0.0;
    let mask = Mask::of(&weights);
    let ledger = Ledger::of(&weights);
    let pruned = ledger.tensors.iter().find(|tensor| tensor.name == name).unwrap();
    assert_eq!((mask.zeros() as u64, ledger.zeros, pruned.zeros), (192, 192, 192));
    assert_eq!((pruned.pattern.as_str(), ledger.pattern.as_str()), ("4:8", "4:8"));
    let mut ones = vec![1.0; weights.data.len()];
    mask.clear(&mut ones);
    let range = weights.layout.tensor(name).unwrap().range.clone();
    for (index, (one, weight)) in ones.iter().zip(&weights.data).enumerate() {
        assert_eq!(*one == 0.0, *weight == 0.0 && range.contains(&index), "{index}");
    }
    let space = tempfile::tempdir().unwrap();
    assert_eq!(Ledger::read(space.path()).unwrap(), None);
    ledger.write(space.path()).unwrap();
    assert_eq!(Ledger::read(space.path()).unwrap(), Some(ledger));
    std::fs::write(space.path().join("sparsity.json"), "{\"format\": 2").unwrap();
    assert!(Ledger::read(space.path()).is_err());
}
