//! What a pack holds, looked at while it arrives and before libgit2 sees any of it: how many objects, how large each is once unpacked, how many deltas
//! stand on each other. libgit2 has no limits for these, and takes the memory that a pack asks for.
//!
//! The format is git's `gitformat-pack`, version 2: a header, objects that are each compressed with zlib, a checksum.

use std::collections::BTreeMap;

use flate2::{Decompress, FlushDecompress, Status};

use crate::base::units;
use crate::source::limits::Limits;

const HEADER_BYTES: usize = 12;
const CHECKSUM_BYTES: u64 = 20;
/// libgit2 keeps smaller objects at hand while it puts deltas together; a larger one is made anew from the ground for each delta above it.
const KEPT_BYTES: u64 = 1 << 20;
/// Of a delta: the sizes of what it is made from and of what it makes.
const MAX_SIZES_BYTES: usize = 20;

/// Looks at a pack piece by piece.
pub struct Scan {
    limits: Limits,
    state: State,
    /// Objects that are still to come.
    left: u32,
    /// From the start of the pack.
    offset: u64,
    /// What all objects come to, unpacked, and what it takes to make them.
    unpacked_bytes: u64,
    named_deltas: u32,
    /// How many deltas stand below one, by its offset: those that stand on nothing are not listed.
    depths: BTreeMap<u64, u16>,
    inflate: Decompress,
}

enum State {
    Header(Vec<u8>),
    /// The start of an object: its type and size, and what a delta stands on.
    Start {
        at: u64,
        bytes: Vec<u8>,
    },
    Content(Content),
    Checksum(u64),
}

struct Content {
    /// How many deltas stand below this one; none for what is no delta.
    depth: u16,
    size_bytes: u64,
    made_bytes: u64,
    /// The beginning of a delta, until its sizes are known.
    sizes: Option<Vec<u8>>,
}

/// An object's first bytes, once they are complete.
struct Start {
    kind: u8,
    size_bytes: u64,
    /// Where the object is that a delta stands on, if it says so by place.
    base: Option<u64>,
}

impl Scan {
    pub fn new(limits: &Limits) -> Scan {
        Scan {
            limits: limits.clone(),
            state: State::Header(Vec::new()),
            left: 0,
            offset: 0,
            unpacked_bytes: 0,
            named_deltas: 0,
            depths: BTreeMap::new(),
            inflate: Decompress::new(true),
        }
    }

    /// Takes the next bytes. The error says what the pack has too much of.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let used = self.step(bytes)?;
            self.offset += used as u64;
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Takes at least one byte of several.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, String> {
        match &mut self.state {
            State::Header(header) => {
                header.push(bytes[0]);
                if header.len() == HEADER_BYTES {
                    self.left = objects(header, &self.limits)?;
                    self.state = self.next(self.offset + 1);
                }
                Ok(1)
            }
            State::Start { at, bytes: start } => {
                start.push(bytes[0]);
                let at = *at;
                if let Some(found) = parse(start, at)? {
                    self.start(at, &found)?;
                }
                Ok(1)
            }
            State::Content(_) => self.content(bytes),
            State::Checksum(left) => {
                let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= used as u64;
                if used == 0 { Err("something follows its pack of objects".to_string()) } else { Ok(used) }
            }
        }
    }

    fn next(&self, at: u64) -> State {
        if self.left == 0 { State::Checksum(CHECKSUM_BYTES) } else { State::Start { at, bytes: Vec::new() } }
    }

    fn start(&mut self, at: u64, start: &Start) -> Result<(), String> {
        self.check_size(start.size_bytes)?;
        let depth = self.depth(at, start)?;
        if depth == 0 {
            self.add(start.size_bytes, depth)?;
        }
        self.inflate.reset(true);
        self.state = State::Content(Content { depth, size_bytes: start.size_bytes, made_bytes: 0, sizes: (depth > 0).then(Vec::new) });
        Ok(())
    }

    fn depth(&mut self, at: u64, start: &Start) -> Result<u16, String> {
        let limits = &self.limits;
        let depth = match start.kind {
            6 => start.base.and_then(|base| self.depths.get(&base)).copied().unwrap_or(0).saturating_add(1),
            7 => {
                self.named_deltas += 1;
                if self.named_deltas > limits.named_deltas {
                    return Err(format!("its pack has more than {} deltas by name", limits.named_deltas));
                }
                // At worst it stands on all others.
                u16::try_from(self.named_deltas).unwrap_or(u16::MAX).min(limits.delta_depth)
            }
            _ => return Ok(0),
        };
        if depth > limits.delta_depth {
            return Err(format!("more than {} deltas of its pack stand on each other", limits.delta_depth));
        }
        self.depths.insert(at, depth);
        Ok(depth)
    }

    /// Unpacks a piece of an object, for nothing but to know where it ends and what a delta makes.
    fn content(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let State::Content(content) = &mut self.state else { return Err("its pack of objects is damaged".to_string()) };
        let mut out = [0u8; 1 << 14];
        let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(bytes, &mut out, FlushDecompress::None);
        let status = status.map_err(|_| "its pack of objects is damaged".to_string())?;
        let used = usize::try_from(self.inflate.total_in() - before_in).unwrap_or(bytes.len());
        let made = usize::try_from(self.inflate.total_out() - before_out).unwrap_or(out.len());
        content.made_bytes += made as u64;
        if content.made_bytes > content.size_bytes {
            return Err("an object of its pack is larger than it says".to_string());
        }
        let mut made_by_delta = None;
        if let Some(sizes) = &mut content.sizes {
            let room = MAX_SIZES_BYTES.saturating_sub(sizes.len()).min(made);
            sizes.extend_from_slice(&out[..room]);
            made_by_delta = result_size(sizes);
            if made_by_delta.is_some() {
                content.sizes = None;
            } else if sizes.len() >= MAX_SIZES_BYTES {
                return Err("a delta of its pack has no sizes".to_string());
            }
        }
        let (is_done, depth) = (status == Status::StreamEnd, content.depth);
        if is_done && (content.made_bytes != content.size_bytes || content.sizes.is_some()) {
            return Err("an object of its pack is smaller than it says".to_string());
        }
        if let Some(size_bytes) = made_by_delta {
            self.check_size(size_bytes)?;
            self.add(size_bytes, depth)?;
        }
        if is_done {
            self.left -= 1;
            self.state = self.next(self.offset + used as u64);
        } else if used == 0 && made == 0 {
            return Err("its pack of objects is damaged".to_string());
        }
        Ok(used)
    }

    fn check_size(&self, size_bytes: u64) -> Result<(), String> {
        let limit_bytes = self.limits.git_object_bytes;
        if size_bytes > limit_bytes {
            let (has, most) = (units::show_size(size_bytes), units::show_size(limit_bytes));
            return Err(format!("one of its files has {has}: in git a file has at most {most}, larger ones belong into Git LFS"));
        }
        Ok(())
    }

    fn add(&mut self, size_bytes: u64, depth: u16) -> Result<(), String> {
        let times = if size_bytes > KEPT_BYTES { u64::from(depth.max(1)) } else { 1 };
        self.unpacked_bytes = self.unpacked_bytes.saturating_add(size_bytes.saturating_mul(times));
        if self.unpacked_bytes > self.limits.pack_bytes {
            return Err(format!("its objects come to more than {}", units::show_size(self.limits.pack_bytes)));
        }
        Ok(())
    }
}

fn objects(header: &[u8], limits: &Limits) -> Result<u32, String> {
    let number = |at: usize| header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    if !header.starts_with(b"PACK") || !matches!(number(4), 2 | 3) {
        return Err("it sends no pack of objects".to_string());
    }
    let objects = number(8);
    if objects > limits.pack_objects {
        return Err(format!("its pack has {objects} objects: at most {} are taken", limits.pack_objects));
    }
    Ok(objects)
}

/// Type and size (3 and 4 bits of the first byte, then 7 of each), and for a delta where its base is (offset, 7 bits of each byte) or its name (20 bytes).
fn parse(bytes: &[u8], at: u64) -> Result<Option<Start>, String> {
    let damaged = || "its pack of objects is damaged".to_string();
    let Some(end) = bytes.iter().position(|byte| byte & 0x80 == 0) else {
        return if bytes.len() > 10 { Err(damaged()) } else { Ok(None) };
    };
    let (first, rest) = bytes.split_first().ok_or_else(damaged)?;
    let mut size_bytes = u64::from(first & 0x0f);
    for (index, byte) in rest.iter().take(end).enumerate() {
        let shift = 4 + 7 * u32::try_from(index).unwrap_or(u32::MAX);
        let bits = u64::from(byte & 0x7f);
        size_bytes |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits).ok_or_else(damaged)?;
    }
    let kind = first >> 4 & 7;
    let tail = bytes.get(end + 1..).unwrap_or_default();
    let base = match kind {
        1..=4 => None,
        7 if tail.len() < 20 => return Ok(None),
        7 => None,
        6 => {
            let Some(distance) = distance(tail)? else { return Ok(None) };
            Some(at.checked_sub(distance).filter(|base| *base < at).ok_or_else(damaged)?)
        }
        _ => return Err(damaged()),
    };
    Ok(Some(Start { kind, size_bytes, base }))
}

fn distance(bytes: &[u8]) -> Result<Option<u64>, String> {
    let mut distance = 0u64;
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 {
            distance += 1;
        }
        if distance > u64::MAX >> 8 {
            return Err("its pack of objects is damaged".to_string());
        }
        distance = distance << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok(Some(distance));
        }
    }
    Ok(None)
}

/// The second of the two sizes that a delta begins with, each in 7 bits of each byte, the lowest first.
fn result_size(delta: &[u8]) -> Option<u64> {
    let (_, after) = size(delta)?;
    size(after).map(|(size_bytes, _)| size_bytes)
}

fn size(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate() {
        let shift = 7 * u32::try_from(index).ok()?;
        // What does not fit is more than any limit.
        value |= u64::from(byte & 0x7f).checked_shl(shift).filter(|shifted| shifted >> shift == u64::from(byte & 0x7f)).unwrap_or(u64::MAX);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn object(kind: u8, base: &[u8], content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        let (low, high) = (content.len() as u8 & 15, content.len() >> 4);
        let mut out = vec![kind << 4 | low];
        if high > 0 {
            out[0] |= 0x80;
            out.push(high as u8);
        }
        [out.as_slice(), base, &encoder.finish().unwrap()].concat()
    }

    fn pack() -> Vec<u8> {
        let blob = object(3, &[], &[7; 300]);
        // From 300 bytes to 300: a copy of all of them.
        let delta = object(6, &[blob.len() as u8], &[0xac, 2, 0xac, 2, 0xb0, 0x2c, 1]);
        let named = object(7, &[9; 20], &[0xac, 2, 0xac, 2, 0xb0, 0x2c, 1]);
        [b"PACK\0\0\0\x02\0\0\0\x04".as_slice(), &blob, &delta, &named, &object(1, &[], b""), &[0; 20]].concat()
    }

    fn scan(bytes: &[u8], piece: usize) -> Result<u64, String> {
        let mut scan = Scan::new(&Limits::default());
        bytes.chunks(piece).try_for_each(|piece| scan.take(piece))?;
        Ok(scan.unpacked_bytes)
    }

    #[test]
    fn a_pack_is_measured_in_pieces_of_any_size() {
        for piece in [1, 2, 7, 64, 1000] {
            assert_eq!(scan(&pack(), piece), Ok(900), "{piece}");
        }
        assert!(scan(&[pack(), vec![0]].concat(), 9).unwrap_err().contains("follows"));
    }

    #[test]
    fn damage_never_panics() {
        let good = pack();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let _any = scan(&bad, 13);
            }
            assert!(scan(&good[..at], 13).is_ok(), "a beginning is no fault yet");
        }
    }
}
