//! The byte-level alphabet of GPT-2: a printable character for each byte. https://github.com/openai/gpt-2/blob/master/src/encoder.py

/// The character that stands for each byte, by byte.
pub fn characters() -> [char; 256] {
    let mut next = 256;
    std::array::from_fn(|byte| {
        let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if printable {
            byte as u32
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).unwrap_or('\u{fffd}')
    })
}

/// The same characters in order of their code, as published vocabularies list them.
pub fn alphabet() -> [char; 256] {
    let mut letters = characters();
    letters.sort_unstable();
    letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_alphabet_of_the_tokenizers_crate() {
        let theirs = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        assert!(alphabet().iter().all(|letter| theirs.contains(letter)));
        assert_eq!(theirs.len(), 256);
        assert_eq!(characters()[usize::from(b' ')], 'Ġ');
        assert_eq!(characters()[usize::from(b'\n')], 'Ċ');
    }
}
