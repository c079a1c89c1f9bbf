//! Random numbers as a function of seed, set, item and throw: no state is shared, so that no item depends on another.

pub struct Dice {
    key: u64,
    throws: u64,
}

impl Dice {
    pub fn new(seed: u64, set: u64, item: u64) -> Dice {
        Dice { key: mix(mix(mix(seed) ^ set) ^ item), throws: 0 }
    }

    /// 0..n, evenly for the small n of this example.
    pub fn below(&mut self, n: u64) -> u64 {
        self.throws += 1;
        let bits = mix(self.key ^ mix(self.throws));
        ((u128::from(bits) * u128::from(n)) >> 64) as u64
    }

    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// True in this many of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    /// Another item than `this` one.
    pub fn other<T: Copy + PartialEq>(&mut self, items: &[T], this: T) -> T {
        loop {
            let item = self.pick(items);
            if item != this {
                return item;
            }
        }
    }
}

/// SplitMix64's finisher (Steele, Lea and Flood, 2014) after its increment.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
