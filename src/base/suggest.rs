//! "Did you mean": the nearest of the known names.

/// Names of people's own are shorter; comparing longer ones would cost the product of their lengths.
const MAX_LENGTH: usize = 100;

/// The name nearest to what was written, if it is near enough to be a slip.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > MAX_LENGTH {
        return None;
    }
    let lower = written.to_lowercase();
    // A letter has at most four bytes, so lengths that differ by more than the distance may be in letters are not worth a look.
    let may_be_near =
        |name: &&str| name.len() <= MAX_LENGTH && name.len().abs_diff(written.len()) <= 4 * name.len().max(written.len()).div_ceil(3);
    known
        .into_iter()
        .filter(may_be_near)
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| {
            let longer = name.len().max(written.len());
            // Two names of which every letter differs are not near, however short they are.
            *distance <= longer.div_ceil(3) && *distance < longer
        })
        .min_by_key(|(distance, name)| (*distance, *name))
        .map(|(_, name)| name)
}

/// `did you mean …?`, or the list of what is known when it is short.
pub fn help<'a>(written: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(name) = nearest(written, known.clone()) {
        return Some(format!("did you mean `{name}`?"));
    }
    let names: Vec<&str> = known.into_iter().collect();
    match names.len() {
        0 => None,
        1..=24 => Some(format!("expected one of {}", listed(&names))),
        _ => None,
    }
}

/// `` `a`, `b`, `c` ``
pub fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_found_and_a_stranger_is_not() {
        let types = ["Q4_K_M", "Q4_0", "Q8_0"];
        assert_eq!(nearest("Q4_KM", types), Some("Q4_K_M"));
        assert_eq!(nearest("learning_rte", ["learning_rate", "seed"]), Some("learning_rate"));
        assert_eq!(nearest("banana", types), None);
        assert_eq!(nearest("3", ["1", "2"]), None);
        assert_eq!(help("banana", types).unwrap(), "expected one of `Q4_K_M`, `Q4_0`, `Q8_0`");
    }
}
