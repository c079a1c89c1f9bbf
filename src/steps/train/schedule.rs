//! The learning rate of each step.

use serde::Deserialize;

use crate::kernels::math::cos64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    Cosine,
    Linear,
    Constant,
}

/// Rises linearly over `warmup_steps`, then falls to zero (or stays) at the end of `max_steps`.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub shape: Shape,
    pub peak: f64,
    pub warmup_steps: u64,
    pub max_steps: u64,
}

impl Schedule {
    /// Of a step counted from 1. Never zero, so that every step learns.
    pub fn at(&self, step: u64) -> f32 {
        if step <= self.warmup_steps {
            return (self.peak * step as f64 / self.warmup_steps as f64) as f32;
        }
        let done = (step - 1 - self.warmup_steps) as f64 / (self.max_steps - self.warmup_steps).max(1) as f64;
        let factor = match self.shape {
            Shape::Cosine => 0.5 * (1.0 + cos64(std::f64::consts::PI * done)),
            Shape::Linear => 1.0 - done,
            Shape::Constant => 1.0,
        };
        (self.peak * factor) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(shape: Shape) -> Vec<f32> {
        let schedule = Schedule { shape, peak: 1.0, warmup_steps: 4, max_steps: 12 };
        (1..=12).map(|step| schedule.at(step)).collect()
    }

    #[test]
    fn it_rises_then_falls_as_asked() {
        assert_eq!(rates(Shape::Constant)[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert_eq!(rates(Shape::Constant)[11], 1.0);
        assert_eq!(rates(Shape::Linear)[4..], [1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]);
        let cosine = rates(Shape::Cosine);
        assert_eq!(cosine[4], 1.0);
        assert!((cosine[8] - 0.5).abs() < 1e-6 && cosine[11] > 0.0 && cosine[11] < 0.05);
        assert!(cosine[4..].is_sorted_by(|a, b| a > b));
        let all_warmup = Schedule { shape: Shape::Cosine, peak: 1.0, warmup_steps: 3, max_steps: 3 };
        assert_eq!(all_warmup.at(3), 1.0);
    }
}
