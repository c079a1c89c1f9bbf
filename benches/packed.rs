//! Products with packed weights on one thread, in the shapes of SmolLM2-135M: `cargo bench --bench packed [-- TYPE…]`.
//!
//! For every type and 1, 8, 128 and 512 rows of x it prints thousand million operations a second (a multiplication and an addition are two), their share of what the
//! processor can do at most, and the bytes of weights that are read a second. Weights are many enough not to stay in the caches near the core. The best of
//! several rounds counts: what else the machine does can only make a round slower.

use std::hint::black_box;
use std::time::Instant;

use slmops::kernels::isa::{self, Isa};
use slmops::kernels::{BlockType, Packed, Write, matmul_packed, rng};

/// Inputs, outputs, and how many such matrices SmolLM2-135M has; the last one is its head.
const SHAPES: [(usize, usize, u32); 5] = [(576, 576, 60), (576, 192, 60), (576, 1536, 60), (1536, 576, 30), (576, 49152, 1)];

/// Bytes of weights that one product after the other reads before the first comes again.
const ROTATION: usize = 48 << 20;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let types: Vec<BlockType> = BlockType::ALL.into_iter().filter(|ty| asked.is_empty() || asked.iter().any(|a| a == ty.name())).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    pool.install(|| types.into_iter().for_each(one_type));
}

fn one_type(ty: BlockType) {
    let quantized = ty.block_values() > 1;
    let peak = if quantized { peaks::bytes() } else { peaks::floats() };
    println!("{ty} on {:?}, at most {peak:.0} Gop/s with {}", isa::current(), if quantized { "bytes" } else { "floats" });
    for m in [1, 8, 128, 512] {
        let (mut layers, mut head) = (0.0, 0.0);
        for (k, n, count) in SHAPES {
            // K blocks hold 256 values, and 576 is no multiple: such tensors are stored in another type. 512 stands in.
            let k = k / ty.block_values() * ty.block_values();
            let seconds = measure(ty, m, k, n);
            let rate = 2.0 * (m * k * n) as f64 / seconds / 1e9;
            let read = ty.bytes_for(k * n).expect("whole blocks") as f64 / seconds / 1e9;
            println!("  m {m:>3} {k:>4}→{n:<5} {rate:>6.1} Gop/s {:>5.1} %, {read:>4.1} GB/s", rate / peak * 100.0);
            *(if count == 1 { &mut head } else { &mut layers }) += seconds * f64::from(count);
        }
        let (layers, all) = (m as f64 / layers, m as f64 / (layers + head));
        println!("  m {m:>3}: {layers:.0} tokens/s for the layers' products, {all:.0} with the head");
    }
}

fn measure(ty: BlockType, m: usize, k: usize, n: usize) -> f64 {
    let size = ty.bytes_for(k * n).expect("whole blocks");
    let copies = (ROTATION / size).max(1);
    let bytes = weights(ty, size * copies);
    let x: Vec<f32> = (0..m * k).map(|i| rng::normal(1, 0, i as u64)).collect();
    let mut y = vec![0.0; m * n];
    let mut best = f64::INFINITY;
    let mut next = 0;
    let each = (40_000_000 / (m * k * n)).clamp(1, copies);
    let started = Instant::now();
    for round in 0..400 {
        let start = Instant::now();
        for _ in 0..each {
            let w = Packed::new(ty, n, k, &bytes[next * size..][..size]);
            matmul_packed(&x, w, black_box(&mut y), Write::Set);
            next = (next + 1) % copies;
        }
        best = best.min(start.elapsed().as_secs_f64() / each as f64);
        if round >= 4 && started.elapsed().as_secs_f64() > 0.3 {
            break;
        }
    }
    best
}

/// Small numbers everywhere, so that no f16 among them is infinite or subnormal.
fn weights(ty: BlockType, size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size as u64 / 8 + 1).flat_map(|i| rng::bits(2, 0, i).to_le_bytes()).collect();
    bytes.truncate(size);
    bytes.iter_mut().for_each(|b| *b = *b & 0x8f | 0x20);
    debug_assert!(size.is_multiple_of(ty.block_bytes()));
    bytes
}

mod peaks {
    //! Independent chains of multiplications and additions in registers.

    use super::{Instant, Isa, black_box, isa};

    const ROUNDS: usize = 1 << 14;
    const CHAINS: usize = 12;

    fn rate(operations: usize, run: impl Fn()) -> f64 {
        let best = (0..100).map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        });
        (ROUNDS * CHAINS * operations) as f64 / best.fold(f64::INFINITY, f64::min) / 1e9
    }

    #[cfg(target_arch = "x86_64")]
    pub fn bytes() -> f64 {
        match isa::current() {
            // SAFETY: the kernels use it, so the processor has it.
            Isa::Vnni => rate(128, || unsafe { vnni() }),
            _ => floats(),
        }
    }

    #[cfg(target_arch = "x86_64")]
    pub fn floats() -> f64 {
        match isa::current() {
            // SAFETY: the kernels use it, so the processor has it.
            Isa::Vnni | Isa::Avx512 => rate(32, || unsafe { avx512() }),
            // SAFETY: as above.
            Isa::Avx2 => rate(16, || unsafe { avx2() }),
            _ => f64::NAN,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub fn bytes() -> f64 {
        f64::NAN
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub fn floats() -> f64 {
        f64::NAN
    }

    #[cfg(target_arch = "x86_64")]
    macro_rules! chains {
        ($name:ident $features:literal $start:expr, $x:ident $step:expr, $acc:ident) => {
            #[target_feature(enable = $features)]
            fn $name() {
                use std::arch::x86_64::*;
                let $x = black_box($start);
                let mut sums = [$x; CHAINS];
                for _ in 0..ROUNDS {
                    for $acc in &mut sums {
                        *$acc = $step;
                    }
                }
                black_box(sums);
            }
        };
    }

    #[cfg(target_arch = "x86_64")]
    chains!(vnni "avx512f,avx512vnni" _mm512_set1_epi32(1), x _mm512_dpbusd_epi32(*acc, x, x), acc);
    #[cfg(target_arch = "x86_64")]
    chains!(avx512 "avx512f" _mm512_set1_ps(1.0), x _mm512_fmadd_ps(x, x, *acc), acc);
    #[cfg(target_arch = "x86_64")]
    chains!(avx2 "avx2,fma" _mm256_set1_ps(1.0), x _mm256_fmadd_ps(x, x, *acc), acc);
}
