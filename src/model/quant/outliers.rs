//! What errors cost where nothing is known of a matrix's inputs. The inputs that matter most, of which a model has few and which are hundreds of times as large as others, meet columns that hold
//! a few very large weights (Yu et al., 2024: "The super weight in large language models"). So the weights tell: a column counts by the fourth moment of its weights over the second.

use crate::kernels::isa::{LANES, clones};

/// Σx² and Σx⁴ of each column.
#[derive(Debug)]
pub struct Outliers {
    sums: Vec<[f64; 2]>,
}

impl Outliers {
    pub fn new(columns: usize) -> Outliers {
        Outliers { sums: vec![[0.0; 2]; columns] }
    }

    /// Takes in whole rows, some hundred at a time: so many are added up in f32.
    pub fn add(&mut self, rows: &[f32]) {
        moments(rows, &mut self.sums);
    }

    /// What the square of an error costs in each column; `None` if no column has any weight.
    pub fn importance(&self) -> Option<Vec<f32>> {
        let costs: Vec<f64> = self.sums.iter().map(|[squares, fourths]| if *squares > 0.0 { fourths / squares } else { 0.0 }).collect();
        relative(&costs)
    }
}

/// In units of their mean, so that no size of them is beyond f32's products, and never quite nothing. `None` if all are nothing.
pub fn relative(costs: &[f64]) -> Option<Vec<f32>> {
    let mean = costs.iter().sum::<f64>() / costs.len() as f64;
    (mean > 0.0).then(|| costs.iter().map(|cost| (cost / mean).clamp(1e-6, 1e12) as f32).collect())
}

clones! {
    fn moments<S>(s, rows: &[f32], sums: &mut [[f64; 2]]) {
        let columns = sums.len();
        for (part, sums) in sums.chunks_mut(LANES).enumerate() {
            let (mut squares, mut fourths) = (s.splat(0.0), s.splat(0.0));
            for row in rows.chunks_exact(columns) {
                let x = s.load_part(&row[part * LANES..][..sums.len()], 0.0);
                let square = s.mul(x, x);
                squares = s.add(square, squares);
                fourths = s.fma(square, square, fourths);
            }
            let of = s.to_array(squares).into_iter().zip(s.to_array(fourths));
            for (sums, (square, fourth)) in sums.iter_mut().zip(of) {
                sums[0] += f64::from(square);
                sums[1] += f64::from(fourth);
            }
        }
    }
}
