//! Exact sums of codes times activations: what each instruction set does best, all with the same integers.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod portable;

use super::panel::Line;
use super::words::Words;

/// How large the codes of a weight are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 0 to 31.
    Five,
    /// 0 to 63.
    Six,
    /// −128 to 127, or 0 to 255 where [`Dot::UNSIGNED`].
    Eight,
}

/// Sixteen lanes of i32 sums. A value is the proof that the processor has the instruction set.
pub trait Dot: Copy {
    type S: Words;
    /// The most rows of x that the registers hold at once: with one sub-block a block, and with two.
    const ROWS: usize;
    const ROWS_OF_HALVES: usize;
    /// Eight-bit codes have to be without sign.
    const UNSIGNED: bool;

    fn simd(self) -> Self::S;

    /// For each row of x and each vector of outputs, `start[row]` plus the sum over `codes` (four to a lane) times `q` (four a word). Lines come in groups of
    /// one line for each vector.
    fn sums<C: Codes, const ROWS: usize, const VECTORS: usize>(
        self,
        codes: &[[Line; VECTORS]],
        q: &[[u32; ROWS]],
        start: &[f32; ROWS],
    ) -> [[<Self::S as crate::isa::Simd>::V; VECTORS]; ROWS];
}

/// A kind of code, as a type so that loops know it.
pub trait Codes {
    const SIZE: Size;
}

#[derive(Clone, Copy, Debug)]
pub struct Five;
#[derive(Clone, Copy, Debug)]
pub struct Six;
#[derive(Clone, Copy, Debug)]
pub struct Eight;

impl Codes for Five {
    const SIZE: Size = Size::Five;
}
impl Codes for Six {
    const SIZE: Size = Size::Six;
}
impl Codes for Eight {
    const SIZE: Size = Size::Eight;
}

/// Defines functions whose body is generic over [`Dot`]: one clone for each instruction set. As `isa::clones!`, but the set comes first among the arguments: the parts of one
/// product depend on each other's layout, so the choice is made once for all of them.
///
/// # Panics
/// If the processor lacks the instruction set.
macro_rules! clones {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident<$D:ident>($d:ident $(, $arg:ident : $ty:ty)* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) {
            assert!(isa.is_available());
            #[inline(always)]
            fn body<$D: $crate::packed::dot::Dot>($d: $D, $($arg: $ty),*) $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
            fn vnni(d: $crate::packed::dot::avx512::Vnni, $($arg: $ty),*) {
                body(d, $($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512(d: $crate::packed::dot::avx512::Pairs, $($arg: $ty),*) {
                body(d, $($arg),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2(d: $crate::packed::dot::avx2::Pairs, $($arg: $ty),*) {
                body(d, $($arg),*);
            }
            match isa {
                // SAFETY: that the processor has the instruction set was asserted above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Vnni => unsafe { vnni($crate::packed::dot::avx512::Vnni::new(), $($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx512 => unsafe { avx512($crate::packed::dot::avx512::Pairs::new(), $($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 => unsafe { avx2($crate::packed::dot::avx2::Pairs::new(), $($arg),*) },
                // SAFETY: as above; NEON is part of every aarch64.
                #[cfg(target_arch = "aarch64")]
                $crate::isa::Isa::Neon => body(unsafe { $crate::packed::dot::neon::Long::new() }, $($arg),*),
                _ => body($crate::isa::portable::Portable, $($arg),*),
            }
        }
    )*};
}
pub(super) use clones;
