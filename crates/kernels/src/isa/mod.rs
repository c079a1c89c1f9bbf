//! The 16-lane vector that every kernel is written in, and the choice of the instruction set that runs it.
//!
//! A kernel is one generic function over [`Simd`]; `clones!` compiles it once for each instruction set and picks one when it is
//! called. All of them compute the same IEEE operations lane by lane, so the choice cannot change a bit: it knows nothing of kernels.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod portable;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Lanes of a vector, on every instruction set.
pub const LANES: usize = 16;

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    Portable = 1,
    Neon = 2,
    Avx2 = 3,
    Avx512 = 4,
    /// AVX-512 with the instructions for products of bytes; all else as [`Isa::Avx512`].
    Vnni = 5,
}

impl Isa {
    pub const ALL: [Isa; 5] = [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::Avx512, Isa::Vnni];

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            Isa::Neon => cfg!(target_arch = "aarch64"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Vnni => Isa::Avx512.is_available() && std::arch::is_x86_feature_detected!("avx512vnni"),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 | Isa::Vnni => false,
        }
    }

    fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Isa::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Isa::Portable))
    }
}

/// 0: the best; otherwise the number of an available [`Isa`].
static FORCED: AtomicU8 = AtomicU8::new(0);
static FORCING: Mutex<()> = Mutex::new(());

/// The instruction set that kernels use now.
pub fn current() -> Isa {
    let forced = FORCED.load(Ordering::Relaxed);
    Isa::ALL.into_iter().find(|isa| *isa as u8 == forced).unwrap_or_else(Isa::best)
}

/// While it lives, every kernel of the process uses one instruction set; see [`force`].
#[derive(Debug)]
pub struct Forced(#[expect(dead_code, reason = "held, not read: it keeps other forcers out")] MutexGuard<'static, ()>);

impl Drop for Forced {
    fn drop(&mut self) {
        FORCED.store(0, Ordering::Relaxed);
    }
}

/// Makes the kernels use `isa` until the guard is dropped, for tests and benches; `None` if this processor lacks it.
///
/// One caller at a time holds the guard, the next one waits. Kernels running meanwhile in other threads switch too, which is harmless:
/// their bits are the same.
pub fn force(isa: Isa) -> Option<Forced> {
    if !isa.is_available() {
        return None;
    }
    let guard = FORCING.lock().unwrap_or_else(PoisonError::into_inner);
    FORCED.store(isa as u8, Ordering::Relaxed);
    Some(Forced(guard))
}

/// Sixteen f32 lanes and the operations that the specification allows. A value of a `Simd` type is the proof that the processor has the
/// instruction set, so its methods are safe.
pub trait Simd: Copy {
    type V: Copy;
    /// The rows and vectors of a matrix product that its registers hold at once.
    const TILE_ROWS: usize;
    const TILE_VECTORS: usize;

    fn splat(self, x: f32) -> Self::V;
    fn load(self, x: &[f32; LANES]) -> Self::V;
    fn to_array(self, v: Self::V) -> [f32; LANES];
    /// Asks for the cache line of `x`, which is read soon. It may point to anything.
    #[inline(always)]
    fn prefetch(self, _x: *const f32) {}
    /// Asks for the cache line of `x`, which is written soon.
    #[inline(always)]
    fn prefetch_to_write(self, _x: &f32) {}
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// a·b + c, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    /// `if a > b { a } else { b }`: `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { a } else { b }`: `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { yes } else { no }`, lane by lane.
    fn select_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// The lanes' bits, as integers: and, or.
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    fn or(self, a: Self::V, b: Self::V) -> Self::V;
    /// The lanes' bits as i32: wrapping sum and difference.
    fn integer_add(self, a: Self::V, b: Self::V) -> Self::V;
    fn integer_sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// The lanes' bits as i32, halved (rounding down).
    fn integer_half(self, a: Self::V) -> Self::V;
    /// The lanes' bits, moved up to or down from the exponent's place (23 bits; down is logical).
    fn exponent_up(self, a: Self::V) -> Self::V;
    fn exponent_down(self, a: Self::V) -> Self::V;
    /// The lanes' bits as i32, converted to f32.
    fn integer_to_float(self, a: Self::V) -> Self::V;

    /// The columns of 16 × 16 values whose rows begin `stride` apart.
    #[inline(always)]
    fn transpose(self, from: &[f32], stride: usize) -> [Self::V; LANES] {
        let mut columns = [[0.0; LANES]; LANES];
        for i in 0..LANES {
            for (column, value) in columns.iter_mut().zip(&from[i * stride..][..LANES]) {
                column[i] = *value;
            }
        }
        let mut vectors = [self.splat(0.0); LANES];
        for (vector, column) in vectors.iter_mut().zip(&columns) {
            *vector = self.load(column);
        }
        vectors
    }

    #[inline(always)]
    fn bits(self, x: u32) -> Self::V {
        self.splat(f32::from_bits(x))
    }

    /// Up to 16 values, the missing lanes `fill`.
    #[inline(always)]
    fn load_part(self, x: &[f32], fill: f32) -> Self::V {
        let mut lanes = [fill; LANES];
        for (lane, value) in lanes.iter_mut().zip(x) {
            *lane = *value;
        }
        self.load(&lanes)
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        *to = self.to_array(v);
    }

    #[inline(always)]
    fn store_part(self, v: Self::V, to: &mut [f32]) {
        for (to, lane) in to.iter_mut().zip(self.to_array(v)) {
            *to = lane;
        }
    }
}

/// Defines functions whose body is generic over [`Simd`]: one clone for each instruction set, chosen at every call.
///
/// What the body calls must be `#[inline(always)]` or part of core's iterators over slices: a closure given to a function that is not
/// inlined (`array::map`) is compiled without the instruction set, which costs a call for each operation.
///
/// `fn name<S>(s, …)` becomes `fn name(…)`: in the body `S` is the vector type's trait and `s` its value.
#[macro_export]
macro_rules! clones {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident<$S:ident>($s:ident $(, $arg:ident : $ty:ty)* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<$S: $crate::isa::Simd>($s: $S, $($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512(s: $crate::isa::avx512::Avx512, $($arg: $ty),*) $(-> $ret)? {
                body(s, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2(s: $crate::isa::avx2::Avx2, $($arg: $ty),*) $(-> $ret)? {
                body(s, $($arg),*)
            }
            match $crate::isa::current() {
                // SAFETY: `current` returns an instruction set only if this processor has it.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512 | $crate::isa::Isa::Vnni => unsafe { avx512($crate::isa::avx512::Avx512::new(), $($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 => unsafe { avx2($crate::isa::avx2::Avx2::new(), $($arg),*) },
                // SAFETY: as above; NEON is part of every aarch64.
                #[cfg(target_arch = "aarch64")]
                $crate::isa::Isa::Neon => body(unsafe { $crate::isa::neon::Neon::new() }, $($arg),*),
                _ => body($crate::isa::portable::Portable, $($arg),*),
            }
        }
    )*};
}
pub use clones;

clones! {
    /// Independent chains of fused multiply-adds in registers, for benches: what the processor can do at most. The floating-point operations that were made.
    pub fn chains<S>(s, rounds: usize) -> usize {
        // As many as the registers hold, and more than an addition takes cycles.
        if const { S::TILE_VECTORS == 1 } { chained::<S, 6>(s, rounds) } else { chained::<S, 12>(s, rounds) }
    }
}

#[inline(always)]
fn chained<S: Simd, const CHAINS: usize>(s: S, rounds: usize) -> usize {
    use std::hint::black_box;
    let x = s.load(&black_box([1.0; LANES]));
    // Nothing that the compiler knows to be alike or sees to be unused: it would leave it out.
    let mut sums = [x; CHAINS];
    for sum in &mut sums {
        *sum = s.load(&black_box([1.0; LANES]));
    }
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = s.fma(x, x, *sum);
        }
    }
    black_box(sums.map(|sum| s.to_array(sum)));
    rounds * CHAINS * LANES * 2
}
