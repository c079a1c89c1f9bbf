//! Points in time as RFC 3339 writes them, as seconds since the epoch. It never asks what time it is.

/// `2026-11-24T06:00:00Z` or with an offset (`+02:00`) → seconds since 1970; fractions of a second are cut off. `None` if it is not such a time.
pub fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = bytes.get(range)?;
        digits.iter().try_fold(0i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let is = |at: usize, of: &[u8]| bytes.get(at).is_some_and(|byte| of.contains(byte));
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let separated = is(4, b"-") && is(7, b"-") && is(10, b"Tt") && is(13, b":") && is(16, b":");
    let in_range = (1..=12).contains(&month) && (1..=month_days(year, month)).contains(&day) && hour < 24 && minute < 60 && second < 60;
    if !separated || !in_range {
        return None;
    }
    let zone = zone_start(bytes)?;
    let offset = match bytes.get(zone..)? {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(zone + 1..zone + 3)?, number(zone + 4..zone + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            if *sign == b'-' { -(hours * 60 + minutes) } else { hours * 60 + minutes }
        }
        _ => return None,
    };
    Some(days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset * 60)
}

/// Where the offset begins: behind the seconds and their fraction.
fn zone_start(bytes: &[u8]) -> Option<usize> {
    if bytes.get(19) != Some(&b'.') {
        return Some(19);
    }
    let digits = bytes.get(20..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 0).then_some(20 + digits)
}

fn month_days(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The proleptic Gregorian calendar with years that begin in March, so that the leap day comes last.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn times_are_read() {
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse("2000-02-29T12:34:56Z"), Some(951_827_696));
        assert_eq!(parse("2026-11-24T08:00:00.25+02:00"), Some(1_795_500_000));
        assert_eq!(parse("1969-12-31T23:59:59z"), Some(-1));
        assert_eq!(parse("1970-01-01T00:00:00-01:30"), Some(5400));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["", "now", "2026-11-24", "2026-02-29T00:00:00Z", "2026-11-24T24:00:00Z", "2026-11-24T06:00:00", "2026-11-24T06:00:00.Z"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("2026-11-24T06:00:00+2:00"), None);
        assert_eq!(parse("२०२६-11-24T06:00:00Z"), None);
    }
}
